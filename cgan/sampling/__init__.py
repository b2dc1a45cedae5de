"""Sampling: class names and seeds to images, rejection, ONNX export, and data sets of samples."""
