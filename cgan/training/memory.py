"""Check that a batch fits in memory before anything is written."""

from __future__ import annotations

import torch
from torch import Tensor

from cgan.errors import RunError
from cgan.runtime.device import free_device_memory
from cgan.training.state import TrainState

PROBE_BATCH = 2
"""Images in the forward pass that is measured."""

PEAK_FACTOR = 3.0
"""Peak memory of a step, as a multiple of what one forward pass of G and D saves for backward. D
also sees real images, a penalty keeps its own graph, and gradients are stored too. (Measured: 1.0
to 2.5 on the packaged configs.)"""


def check_batch_fits(state: TrainState, world_size: int = 1) -> None:
    """Reject a batch size that does not fit in memory.

    Raises:
        RunError: the message says how much memory is needed and which batch size would fit.
    """
    each, free = bytes_per_image(state), free_device_memory(state.device)
    batch = state.config.batch_size
    needed = batch // world_size * each
    if needed > free:
        raise RunError(
            f"a batch of {batch:,} takes about {needed / 2**30:,.1f} GiB in training, and "
            f"{state.device} has {free / 2**30:,.1f} GiB free: about "
            f"{free // each * world_size:,} would fit, so lower --batch-size"
        )


def bytes_per_image(state: TrainState) -> int:
    """Approximate peak memory of a step per image of its batch, without the weights."""
    saved: dict[int, int] = {}
    weights = {w.data_ptr() for n in state.networks.values() for w in n.parameters()}

    def record(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            saved[tensor.data_ptr()] = tensor.nbytes
        return tensor

    generator, discriminator = state.generator.eval(), state.discriminator.eval()
    z = torch.zeros(PROBE_BATCH, state.config.model.latent_dim, device=state.device)
    labels = None
    if state.config.model.conditional:
        labels = torch.zeros(PROBE_BATCH, dtype=torch.int64, device=state.device)
    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        output = discriminator(generator(z, labels), labels)
    generator.train()
    discriminator.train()
    del output
    return int(PEAK_FACTOR * sum(saved.values()) / PROBE_BATCH)
