"""Files: atomic writes, paths, checkpoints, metrics and images."""
