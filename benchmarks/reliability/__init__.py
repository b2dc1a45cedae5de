"""``python -m benchmarks reliability``: what a run, a file and a command survive."""
