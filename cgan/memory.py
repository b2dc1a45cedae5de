"""Whether a batch fits the memory of a device, asked before anything is written."""

from __future__ import annotations

import torch
from torch import Tensor

from cgan.data.sources import free_memory
from cgan.errors import RunError
from cgan.learner import Learner

PROBE = 2
"""Pictures that one pass is measured with."""

PASSES = 3.0
"""What a whole step takes at its most, of what one pass through G and D keeps for its gradients:
D sees real pictures too, a penalty keeps its own pass, and gradients come beside what is kept.
(1.0 to 2.5 was measured on the packaged configs.)"""


def check_batch_fits(learner: Learner) -> None:
    """Refuse a batch that would not fit.

    Raises:
        RunError: saying how much it takes and what would fit.
    """
    parts = learner.world.size
    each, free = bytes_a_picture(learner), free_bytes(learner.device)
    batch = learner.config.batch_size
    if batch // parts * each > free:
        raise RunError(
            f"a batch of {batch:,} takes about {batch // parts * each / 2**30:,.1f} GiB while it "
            f"learns, and {learner.device} has {free / 2**30:,.1f} GiB free: about "
            f"{free // each * parts:,} would fit, so lower --batch-size"
        )


def bytes_a_picture(learner: Learner) -> int:
    """About the most that a step takes for each picture of its batch, besides the weights."""
    kept: dict[int, int] = {}
    weights = {w.data_ptr() for n in learner.networks.values() for w in n.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    generator, discriminator = learner.generator.eval(), learner.discriminator.eval()
    z = torch.zeros(PROBE, learner.config.model.latent_dim, device=learner.device)
    labels = None
    if learner.config.model.conditional:
        labels = torch.zeros(PROBE, dtype=torch.int64, device=learner.device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = discriminator(generator(z, labels), labels)
    generator.train()
    discriminator.train()
    del answer
    return int(PASSES * sum(kept.values()) / PROBE)


def free_bytes(device: torch.device) -> int:
    """Memory that can still be had there."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()
