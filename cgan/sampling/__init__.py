"""Sampling: images from class names and seeds, rejection, ONNX export, generated data sets."""
