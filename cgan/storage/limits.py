"""Limits on headers, exports, logs and descriptions of data sets, which may come from anyone.

``cgan.config_yaml`` holds those on configs, and ``cgan.data.image_file`` those on images.

A file beyond a limit is refused with a ``FileError`` before memory is allocated for its content.
"""

from __future__ import annotations

MAX_HEADER_BYTES = 8 * 2**20
"""JSON header of a safetensors file or an export. The 21,841 classes of ImageNet-21k take 3 MB."""

MAX_JSON_DEPTH = 16
"""Objects and lists inside each other. A model card has 5 levels."""

MAX_INTEGER = 2**63 - 1
"""Absolute value of a whole number in JSON; the largest seed."""

MAX_CLASSES = 2**16
"""Classes of a data set. ImageNet-21k has 21,841."""

MAX_CLASS_NAME = 255
"""Characters of a class name. No file system that cgan runs on has longer folder names."""

MAX_SIDE = 1_024
"""Height and width of an image in pixels. A config allows 512."""

MAX_LATENT_DIM = 4_096
"""Length of z, as in a config."""

MAX_CONFUSION_CLASSES = 1_000
"""With more classes, a header leaves out the confusion matrix: it would exceed its limit."""

MAX_EXPORT_EXTRA = 4 * 2**20
"""Bytes by which an ONNX export may be larger than its generator file. The graph takes 20 kB."""

MAX_METRICS_BYTES = 256 * 2**20
"""``metrics.jsonl``. A line has about 300 bytes."""

MAX_MANIFEST_BYTES = 32 * 2**20
"""``dataset.json``. It repeats the class names of a header twice."""
