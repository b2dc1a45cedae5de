"""Training: a run from its config to the final evaluation."""
