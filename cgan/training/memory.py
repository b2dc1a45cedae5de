"""Check that a batch fits in memory before anything is written."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from cgan.errors import RunError
from cgan.runtime.device import device_memory
from cgan.training.state import TrainState

PROBE_BATCH = 2
"""Images in the forward pass that is measured."""

PEAK_FACTOR = 3.0
"""Likely peak memory of a step, as a multiple of what one forward pass of G and D saves for
backward. D also sees real images, a penalty keeps its own graph, and gradients are stored too.
(Measured on a CPU: 1.3 to 2.3 without a penalty, up to 3.4 with one.)"""

MIN_FACTOR = 0.25
"""No step needs less than this multiple: bfloat16 halves the lowest measured value, and half of the
rest allows for what torch.compile saves."""

logger = logging.getLogger("cgan")


def check_batch_fits(state: TrainState, world_size: int = 1) -> None:
    """Reject a batch size that cannot fit in memory, and warn about one that probably does not.

    Raises:
        RunError: even the smallest estimate is more than the device has; the message says which
            batch size would fit.
    """
    memory = device_memory(state.device)
    if memory is None:
        return
    each, batch = bytes_per_image(state), state.config.batch_size
    share = batch // world_size * each
    fits = int(memory.free / (PEAK_FACTOR * each)) * world_size
    advice = f"lower --batch-size to about {fits:,}"
    if fits < 2 * world_size:
        advice = "use smaller networks (--set model.width=…) or images (--size)"
    if MIN_FACTOR * share > memory.total:
        raise RunError(
            f"a batch of {batch:,} takes at least {_gibibytes(MIN_FACTOR * share)} in training, "
            f"and {state.device} has {_gibibytes(memory.total)}: {advice}"
        )
    if PEAK_FACTOR * share > memory.free:
        logger.warning(
            "a batch of %s probably takes about %s in training, and %s has %s free: if memory runs "
            "out, %s",
            f"{batch:,}",
            _gibibytes(PEAK_FACTOR * share),
            state.device,
            _gibibytes(memory.free),
            advice,
        )


def bytes_per_image(state: TrainState) -> int:
    """Bytes that a forward pass of G and D saves for backward, per image, without the weights."""
    saved: dict[int, int] = {}
    networks = state.generator, state.discriminator
    weights = {weight.data_ptr() for one in networks for weight in one.parameters()}

    def record(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            saved[tensor.data_ptr()] = tensor.nbytes
        # Saving an output itself makes a cycle: the graph would never be freed, and its nodes on
        # this stream would break the capture of a CUDA graph.
        return tensor.detach()

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
    return sum(saved.values()) // PROBE_BATCH


def _gibibytes(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB"
