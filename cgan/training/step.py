"""One training step: learning rate, penalty schedule, update, EMA; compiled or captured."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from cgan.config import Config
from cgan.errors import one_line
from cgan.losses import get_loss
from cgan.models.conditioning import sync_batch_norm
from cgan.runtime.distributed import SINGLE_PROCESS, World
from cgan.training.cuda_graph import Capture, GraphedStep, Step, capture_cuda_graph
from cgan.training.ema import ema_decay, update_ema
from cgan.training.lr_schedule import learning_rate
from cgan.training.state import TrainState
from cgan.updates import NO_PENALTY, Losses, PenaltyWeights, Players, get_update

logger = logging.getLogger("cgan")


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
        if capture is None and device.type == "cuda" and world.size == 1 and not config.compile:
            capture = capture_cuda_graph
        self.players = Players(
            prepare_forward(state.generator, config, device),
            prepare_forward(state.discriminator, config, device),
            state.generator_optimizer,
            state.discriminator_optimizer,
        )
        self.scheme = get_update(config.update)
        self.loss = get_loss(config.loss)._replace(aux_weight=config.aux_weight)
        interval = config.penalty.lazy_interval
        self.weights = PenaltyWeights(
            r1=interval * config.penalty.r1,
            r2=interval * config.penalty.r2,
            gradient_penalty=interval * config.penalty.gradient_penalty,
        )
        # A captured step reads them again at every replay, so they must be tensors.
        self.lr: Tensor | float = torch.tensor(config.lr, device=device) if capture else config.lr
        self.decay: Tensor | float = torch.zeros((), device=device) if capture else 0.0
        for optimizer in state.optimizers.values():
            optimizer.param_groups[0]["capturable"] = capture is not None and device.type == "cuda"
        if world.size > 1:
            sync_batch_norm(state.generator, world.all_reduce_mean, world.size)
            for optimizer in state.optimizers.values():
                optimizer.register_step_pre_hook(world.average_gradients)
        self.run: Step = self.update
        if capture:
            self.run = GraphedStep(self.update, capture)
        elif config.compile:
            self.run = self.update_compiled

    def __call__(self, real: Tensor, labels: Tensor) -> Losses:
        """Train on one batch: images (B, C, H, W) in [-1, 1] and labels (B,).

        Each of several processes passes its shard of the batch. Read the losses before the next
        step, which may overwrite them.
        """
        config, counters = self.config, self.state.counters
        penalise = counters.steps % config.penalty.lazy_interval == 0
        lr = learning_rate(config, counters.progress(config))
        counters.steps += 1
        counters.images_seen += config.batch_size
        decay = ema_decay(config.batch_size, config.ema_half_life_images, counters.images_seen)
        if isinstance(self.lr, Tensor) and isinstance(self.decay, Tensor):
            self.lr.fill_(lr)
            self.decay.fill_(decay)
        else:
            self.lr, self.decay = lr, decay
        for optimizer in self.state.optimizers.values():
            optimizer.param_groups[0]["lr"] = self.lr  # restoring a state replaces it by a copy
        return self.run(real, labels, self.weights if penalise else NO_PENALTY)

    def update(self, real: Tensor, labels: Tensor, weights: PenaltyWeights) -> Losses:
        """Update both networks and the EMA. Nothing here reads a result back from the device."""
        conditional = self.config.model.conditional
        losses = self.scheme(
            self.players, real, labels if conditional else None, self.draw_z, self.loss, weights
        )
        update_ema(self.state.generator_ema, self.state.generator, self.decay)
        return losses

    def update_compiled(self, real: Tensor, labels: Tensor, weights: PenaltyWeights) -> Losses:
        """Like ``update``, with compiled networks; falls back to it if compilation fails."""
        from torch._functorch import config as functorch  # torch imports it lazily too

        try:
            # `shared` runs backward twice through one graph, so buffers must not be donated.
            with functorch.patch(donated_buffer=False):
                return self.update(real, labels, weights)
        except torch._dynamo.exc.TorchDynamoException as error:
            logger.warning("torch.compile does not work here, so it is off: %s", one_line(error))
            self.players.generator = self.state.generator
            self.players.discriminator = self.state.discriminator
            self.run = self.update
            return self.update(real, labels, weights)

    def draw_z(self) -> Tensor:
        """New z ~ N(0, 1) for this process's shard of the batch."""
        shape = (self.config.batch_size, self.config.model.latent_dim)
        return self.world.shard(torch.randn(shape, device=self.state.device))


def prepare_forward(network: nn.Module, config: Config, device: torch.device) -> nn.Module:
    """Prepare a network for training: bfloat16 autocast, torch.compile, or no change."""
    if config.bf16 and device.type == "cuda":
        plain = network.forward

        def forward(*inputs: Tensor | None) -> Tensor:
            with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
                output: Tensor = plain(*inputs)
            return output.float()  # losses and penalties use full precision

        network.forward = forward
    if config.compile:
        compiled = torch.compile(network)
        assert isinstance(compiled, nn.Module)
        return compiled
    return network
