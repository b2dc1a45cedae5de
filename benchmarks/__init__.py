"""Measurements, each printed with its machine. Run nothing else beside them."""
