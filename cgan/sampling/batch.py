"""How many images a generator draws at once."""

from __future__ import annotations

CPU_BATCH, CPU_PIXELS = 64, 64 * 64 * 64
GPU_BATCH, GPU_PIXELS = 4_096, 4_096 * 32 * 32


def batch_size(image_shape: tuple[int, int, int], device_type: str) -> int:
    """Images per batch: a power of two that depends on the image size and the device type only.

    Rounding depends on the batch size, so the same image needs the same batch size on every
    machine, whatever memory is free. The batch is 64 on a CPU and 4,096 on a GPU, and smaller for
    images of more than 64×64 (CPU) or 32×32 pixels (GPU), so that a batch has a limited number of
    pixels. 512×512 gives 1 and 16.

    The limits follow from a DCGAN of the default width. Its largest tensors have 32 channels at
    half resolution, that is 32 / 4 = 8 numbers per pixel of the image. Three of them exist at once
    (before batch norm, after it, and after ReLU): 24 numbers or 96 bytes per pixel. With the image
    itself, a batch takes about 27 MiB on a CPU and 430 MiB on a GPU.

    Args:
        image_shape: (C, H, W).
        device_type: ``"cpu"``, or the type of a GPU.
    """
    _, height, width = image_shape
    most, pixels = (CPU_BATCH, CPU_PIXELS) if device_type == "cpu" else (GPU_BATCH, GPU_PIXELS)
    fitting = max(pixels // (height * width), 1)
    return min(most, 1 << (fitting.bit_length() - 1))
