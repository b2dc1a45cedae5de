"""Open an ONNX network with onnxruntime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgan.runtime.cpu import count_cores

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def open_session(content: bytes, spinning: bool = True) -> InferenceSession:
    """Open the bytes of an ONNX file, with one thread per usable core.

    Without a path, the network cannot name other files that hold its weights.

    Args:
        content: the bytes.
        spinning: whether waiting threads keep their cores. That is faster, unless torch runs
            between two calls.

    Raises:
        ImportError: onnxruntime is not installed.
        Exception: any exception of onnxruntime for an invalid file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, so do not print them
    options.intra_op_num_threads = count_cores()
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
