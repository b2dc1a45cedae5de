"""Benchmarks. Each prints the machine it ran on. Run nothing else at the same time."""
