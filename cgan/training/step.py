"""One training step: learning rate, penalty schedule, update, EMA; compiled or captured.

At the end: whether its batch fits in memory.

Learning rate, penalties, β₂, augmentation and EMA may change over the budget, along a cosine: R3GAN
(Huang et al. 2024, appendix D) schedules all of these.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cgan.augment import Augment, AugmentedDiscriminator
from cgan.config import Config
from cgan.errors import RunError, one_line
from cgan.evaluation.judge import Judge
from cgan.losses import get_loss
from cgan.models.conditioning import sync_batch_norm
from cgan.models.layers import shard_dropout
from cgan.runtime.device import device_memory
from cgan.runtime.distributed import SINGLE_PROCESS, World
from cgan.runtime.streams import run_both
from cgan.training.cuda_graph import Capture, GraphedStep, Step, capture_cuda_graph
from cgan.training.ema import ema_decay, update_ema
from cgan.training.state import TrainState
from cgan.updates import (
    GAN,
    NO_PENALTY,
    PenaltyWeights,
    StepLosses,
    Teacher,
    get_update,
    in_turn,
)

BETA2_STAGES = 16
"""β₂ changes in this many stages, because a captured CUDA graph holds it as a constant."""
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


def cosine(start: float, end: float, progress: float) -> float:
    """From ``start`` at progress 0 to ``end`` at progress 1: Loshchilov and Hutter 2017, SGDR,
    equation 5, without restarts."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def learning_rate(config: Config, progress: float) -> float:
    """The learning rate of both optimisers, from ``lr`` to ``lr · lr_final_fraction``."""
    return config.lr * cosine(1.0, config.lr_final_fraction, progress)


def penalty_scale(config: Config, progress: float) -> float:
    """Factor of all γ, from 1 to ``penalty.final_fraction``."""
    return cosine(1.0, config.penalty.final_fraction, progress)


def beta2(config: Config, progress: float) -> float:
    """Adam's β₂, from ``betas[1]`` to ``beta2_final``, constant within each stage."""
    stage = min(int(progress * BETA2_STAGES), BETA2_STAGES - 1)
    return between(config.betas[1], config.beta2_final, stage / (BETA2_STAGES - 1))


def augment_probability(config: Config, progress: float) -> float:
    """Probability of each augmentation."""
    return between(config.augment_probability, config.augment_probability_final, progress)


def ema_half_life(config: Config, progress: float) -> float:
    """Half-life of the generator's moving average, in images."""
    return between(config.ema_half_life_images, config.ema_half_life_final_images, progress)


def between(start: float, end: float | None, progress: float) -> float:
    """The cosine from start to end; the start if there is no end."""
    return start if end is None else cosine(start, end, progress)


class TrainStep:
    """Updates a ``TrainState`` with one batch per call.

    Args:
        state: changed in place.
        world: the processes that share each batch; gradients and batch norm are synchronised.
        capture: captures the step for replay; None captures a CUDA graph if possible.
    """

    def __init__(
        self, state: TrainState, world: World = SINGLE_PROCESS, capture: Capture | None = None
    ) -> None:
        self.state, self.config, self.world = state, state.config, world
        config, device = state.config, state.device
        shares = (state.class_counts.cumsum(0) / state.class_counts.sum()).to(device)
        self.class_limits = shares[:-1] if state.unlabelled_digest else None
        if capture is None and self.can_be_captured():
            capture = capture_cuda_graph
        # A generator that is steered cannot learn to draw mirrored images.
        real_only = ["mirror"] if state.plain is None else []
        of_real = [name for name in state.augmentations if name in real_only]
        of_both = [name for name in state.augmentations if name not in real_only]
        self.augment_real = Augment(of_real, world.rank, world.size)
        self.discriminator = AugmentedDiscriminator(
            state.discriminator, Augment(of_both, world.rank, world.size)
        )
        on_streams = device.type == "cpu" and not capture
        self.gan = GAN(
            prepare_forward(state.generator, config, device),
            prepare_forward(self.discriminator, config, device),
            state.generator_optimizer,
            state.discriminator_optimizer,
            get_loss(config.loss)._replace(aux_weight=config.aux_weight),
            self.on_streams if on_streams else in_turn,
            None if state.teacher is None else as_teacher(state.teacher),
        )
        self.scheme = get_update(config.update)
        # A captured step reads these again at every replay, so they must be tensors.
        self.lr: Tensor | float = torch.tensor(config.lr, device=device) if capture else config.lr
        self.decay: Tensor | float = torch.zeros((), device=device) if capture else 0.0
        self.scale: Tensor | float = torch.ones((), device=device) if capture else 1.0
        self.betas = config.betas
        if (config.augment_probability, config.augment_probability_final) != (1, None):
            probability = torch.ones((), device=device) if capture else 1.0
            self.discriminator.augment.probability = probability
        self.weights = penalty_weights(config)
        for optimizer in state.optimizers.values():
            optimizer.param_groups[0]["capturable"] = capture is not None and device.type == "cuda"
        if world.size > 1:
            self.synchronise()
        self.run: Step = self.update
        if capture:
            self.run = GraphedStep(self.update, capture)
        elif config.compile:
            self.run = self.update_compiled

    def can_be_captured(self) -> bool:
        """Whether a CUDA graph can hold a step: one process, which alone runs or compiles it."""
        plain = self.state.plain
        in_torch = plain is None or plain.differentiable  # onnxruntime cannot be captured
        alone = self.world.size == 1 and not self.config.compile
        return self.state.device.type == "cuda" and alone and in_torch

    def synchronise(self) -> None:
        """Let several processes train what one trains."""
        world, state = self.world, self.state
        sync_batch_norm(state.generator, world.all_reduce_mean, world.size)
        shard_dropout(state.discriminator, world.rank, world.size)
        for optimizer in state.optimizers.values():
            optimizer.register_step_pre_hook(world.average_gradients)

    def __call__(self, real: Tensor, labels: Tensor) -> StepLosses:
        """Train on one batch: images (B, C, H, W) in [-1, 1] and labels (B,), -1 for none.

        Each of several processes passes its shard of the batch. Read the losses before the next
        step, which may overwrite them.
        """
        config, counters = self.config, self.state.counters
        penalise = counters.steps % config.penalty.lazy_interval == 0
        teach = self.gan.teacher is not None and counters.steps % config.teacher.interval == 0
        progress = counters.progress(config)
        counters.steps += 1
        counters.images_seen += config.batch_size
        self.set_schedules(progress)
        weights = replace(self.weights, scale=self.scale) if penalise else NO_PENALTY
        if teach:
            weights = replace(weights, teacher=config.teacher.interval * config.teacher.weight)
        return self.run(real, labels, weights)

    def set_schedules(self, progress: float) -> None:
        """Set everything that changes over the budget to its value at this progress."""
        config, augment = self.config, self.discriminator.augment
        half_life = ema_half_life(config, progress)
        decay = ema_decay(config.batch_size, half_life, self.state.counters.images_seen)
        self.lr = fill(self.lr, learning_rate(config, progress))
        self.scale = fill(self.scale, penalty_scale(config, progress))
        self.decay = fill(self.decay, decay)
        if augment.probability is not None:
            probability = augment_probability(config, progress)
            augment.probability = fill(augment.probability, probability)
        betas = config.betas[0], beta2(config, progress)
        if betas != self.betas and isinstance(self.run, GraphedStep):
            self.run.replays.clear()  # they hold the old one as a constant
        self.betas = betas
        for optimizer in self.state.optimizers.values():
            # Restoring a state replaces the group by a copy.
            optimizer.param_groups[0].update(lr=self.lr, betas=betas)

    def update(self, real: Tensor, labels: Tensor, weights: PenaltyWeights) -> StepLosses:
        """Update both networks and the EMA. Nothing here reads a result back from the device."""
        conditional = self.config.model.conditional
        losses = self.scheme(
            self.gan,
            self.augment_real(real),
            labels if conditional else None,
            self.draw_z,
            weights,
            self.draw_fake_labels(labels) if conditional else None,
        )
        networks = self.state.networks
        update_ema(networks["ema"], networks["G"], self.decay)
        return losses

    def update_compiled(self, real: Tensor, labels: Tensor, weights: PenaltyWeights) -> StepLosses:
        """Like ``update``, with compiled networks; falls back to it if compilation fails."""
        from torch._functorch import config as functorch  # torch imports it lazily too

        try:
            # `simultaneous` runs backward twice through one graph, so buffers must not be donated.
            with functorch.patch(donated_buffer=False):
                return self.update(real, labels, weights)
        except torch._dynamo.exc.TorchDynamoException as error:
            logger.warning("torch.compile does not work here, so it is off: %s", one_line(error))
            config = self.config.model_copy(update={"compile": False})
            device = self.state.device
            self.gan.generator = prepare_forward(self.state.generator, config, device)
            self.gan.discriminator = prepare_forward(self.discriminator, config, device)
            self.run = self.update
            return self.update(real, labels, weights)

    def on_streams(self, first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
        """Call two functions on two streams, or in turn: processes must exchange gradients in the
        same order, and compilation is not made for threads. The result is the same."""
        seed = int(torch.randint(2**63 - 1, ()))
        return run_both(first, second, seed, self.world.size > 1 or self.config.compile)

    def draw_z(self) -> Tensor:
        """New z ~ N(0, 1) for this process's shard of the batch."""
        shape = (self.config.batch_size, self.config.model.latent_dim)
        return self.world.shard(torch.randn(shape, device=self.state.device))

    def draw_fake_labels(self, labels: Tensor) -> Tensor:
        """The labels, with a random class in place of -1, as frequent as in the training data.

        Otherwise D could tell real images without a label from fakes by their class.
        """
        if self.class_limits is None:
            return labels
        u = torch.rand(self.config.batch_size, device=self.state.device)
        drawn = torch.bucketize(self.world.shard(u), self.class_limits, right=True)
        return torch.where(labels < 0, drawn, labels)


def penalty_weights(config: Config) -> PenaltyWeights:
    """γ of the steps that have penalties. It warns if they rule out what the config asks for."""
    interval = config.penalty.lazy_interval
    weights = PenaltyWeights(r1=interval * config.penalty.r1, r2=interval * config.penalty.r2)
    if weights and interval == 1 and (config.bf16 or config.compile):
        logger.warning(
            "D is trained without %s, because a gradient penalty in every step needs full "
            "precision and code that is not compiled: raise penalty.lazy_interval to 2 or more",
            "bf16" if config.bf16 else "torch.compile",
        )
    return weights


def as_teacher(judge: Judge) -> Teacher:
    """What a judge says of images in [-1, 1]."""
    return lambda images: judge.probabilities((images + 1) / 2)


def fill(old: Tensor | float, value: float) -> Tensor | float:
    """The value; if the old one is a tensor, that tensor, filled with it."""
    return old.fill_(value) if isinstance(old, Tensor) else value


class Autocast(nn.Module):
    """A network that computes in bfloat16 and returns float32: one tensor, or several."""

    def __init__(self, network: nn.Module, device_type: str) -> None:
        super().__init__()
        self._orig_mod, self.device_type = network, device_type  # the name that torch.compile uses

    def forward(self, *inputs: Tensor | None) -> Any:
        """The output of the network, as float32: losses use full precision."""
        with torch.autocast(self.device_type, torch.bfloat16, cache_enabled=False):
            output = self._orig_mod(*inputs)
        if isinstance(output, tuple):
            return tuple(one.float() for one in output)
        return output.float()


def prepare_forward(network: nn.Module, config: Config, device: torch.device) -> nn.Module:
    """Prepare a network for training: bfloat16 autocast, torch.compile, or no change."""
    if config.bf16 and device.type == "cuda":
        network = Autocast(network, device.type)
    if config.compile:
        compiled = torch.compile(network)
        assert isinstance(compiled, nn.Module)
        return compiled
    return network


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
            f"a batch of {batch:,} takes at least {gibibytes(MIN_FACTOR * share)} in training, "
            f"and {state.device} has {gibibytes(memory.total)}: {advice}"
        )
    if PEAK_FACTOR * share > memory.free:
        logger.warning(
            "a batch of %s probably takes about %s in training, and %s has %s free: if memory runs "
            "out, %s",
            f"{batch:,}",
            gibibytes(PEAK_FACTOR * share),
            state.device,
            gibibytes(memory.free),
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


def gibibytes(count: float) -> str:
    """``1.5 GiB``."""
    return f"{count / 2**30:,.1f} GiB"
