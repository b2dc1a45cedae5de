"""The batch size depends on the image size and the device type, and nothing else."""

import pytest

from cgan.sampling.latents import batch_size


@pytest.mark.parametrize(
    ("shape", "cpu", "gpu"),
    [
        ((1, 8, 8), 64, 4_096),
        ((1, 28, 28), 64, 4_096),
        ((3, 32, 32), 64, 4_096),
        ((3, 36, 36), 64, 2_048),
        ((3, 64, 64), 64, 1_024),
        ((1, 64, 64), 64, 1_024),
        ((3, 68, 68), 32, 512),
        ((3, 128, 128), 16, 256),
        ((3, 64, 128), 32, 512),
        ((3, 256, 256), 4, 64),
        ((3, 512, 512), 1, 16),
        ((3, 4_096, 4_096), 1, 1),
    ],
)
def test_larger_images_are_drawn_in_smaller_batches(
    shape: tuple[int, int, int], cpu: int, gpu: int
) -> None:
    assert batch_size(shape, "cpu") == cpu
    assert {batch_size(shape, kind) for kind in ("cuda", "mps", "xpu")} == {gpu}
