"""Evaluation: a judge trained on real data, and the metrics of generated images."""
