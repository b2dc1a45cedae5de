"""What changes while a run learns: two networks, an average, two optimisers, three counters."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cgan.checkpoint import (
    GENERATOR,
    GENERATOR_VERSION,
    load_state,
    pack_state,
    save_state,
    save_tensors,
    unpack_state,
)
from cgan.config import Config
from cgan.data import PictureFolder, Pictures
from cgan.distributed import ALONE, World
from cgan.ema import copy_frozen, decay_after, update_average
from cgan.errors import Diverged
from cgan.losses import get_loss
from cgan.models import build_networks
from cgan.models.conditioning import share_moments
from cgan.places import GENERATOR_FILE
from cgan.recorded import Record, RecordedStep, Step, record_cuda_graph
from cgan.sampling import Sampler
from cgan.updates import NO_PENALTY, Losses, Penalty, Players, get_update

logger = logging.getLogger("cgan")


@dataclass
class Counters:
    """The part of a run's state that is not a tensor."""

    images_seen: int = 0
    steps: int = 0
    seconds: float = 0.0

    def share(self, config: Config) -> float:
        """How much of the budget is spent, from 0 to 1."""
        if config.minutes is not None:
            return min(self.seconds / (60 * config.minutes), 1.0)
        return min(self.images_seen / (config.images or 1), 1.0)


class Learner:
    """Learns from one batch at a time, and can be put down and taken up again.

    Weights are drawn from torch's global random state, and so is every z: seed it first.
    """

    def __init__(
        self,
        config: Config,
        pictures: Pictures | PictureFolder,
        device: torch.device,
        world: World = ALONE,
        record: Record | None = None,
    ) -> None:
        self.config, self.device, self.counters = config, device, Counters()
        self.world = world
        if record is None and device.type == "cuda" and world.size == 1 and not config.compile:
            record = record_cuda_graph
        self.classes, self.image_shape = pictures.classes, pictures.image_shape
        self.data_name = pictures.name
        pair = build_networks(config.model, pictures.image_shape, len(pictures.classes))
        self.generator = to_device(pair.generator, device)
        self.discriminator = to_device(pair.discriminator, device)
        self.average = copy_frozen(self.generator)
        # What a recorded step reads anew each time must be a tensor.
        self.lr: Tensor | float = torch.tensor(config.lr, device=device) if record else config.lr
        self.decay: Tensor | float = torch.zeros((), device=device) if record else 0.0
        self.players = Players(
            fast(self.generator, config, device),
            fast(self.discriminator, config, device),
            make_optimizer(self.generator, config, self.lr),
            make_optimizer(self.discriminator, config, self.lr),
        )
        if world.size > 1:
            share_moments(self.generator, world.mean, world.size)
            for optimizer in self.optimizers.values():
                optimizer.register_step_pre_hook(world.average_gradients)
        self.update = get_update(config.update)
        self.loss = get_loss(config.loss)._replace(auxiliary=config.auxiliary)
        often = config.penalty.every_steps
        self.penalty = Penalty(
            r1=often * config.penalty.r1,
            r2=often * config.penalty.r2,
            gradient_penalty=often * config.penalty.gradient_penalty,
        )
        self.run: Step = self.learn
        if record:
            self.run = RecordedStep(self.learn, record)
        elif config.compile:
            self.run = self.learn_compiled

    def step(self, real: Tensor, labels: Tensor) -> Losses:
        """Learn from one batch: pictures (B, C, H, W) in [-1, 1] and labels (B,).

        One of several processes is given its part of the batch. The losses are to be read before
        the next step: it may overwrite them.
        """
        config, counters = self.config, self.counters
        due = counters.steps % config.penalty.every_steps == 0
        lr = self.learning_rate
        counters.steps += 1
        counters.images_seen += config.batch_size
        decay = decay_after(config.batch_size, config.ema_half_life_images, counters.images_seen)
        if isinstance(self.lr, Tensor) and isinstance(self.decay, Tensor):
            self.lr.fill_(lr)
            self.decay.fill_(decay)
        else:
            self.lr, self.decay = lr, decay
        for optimizer in self.optimizers.values():
            optimizer.param_groups[0]["lr"] = self.lr  # loading a state puts a copy there
        return self.run(real, labels, self.penalty if due else NO_PENALTY)

    def learn(self, real: Tensor, labels: Tensor, penalty: Penalty) -> Losses:
        """What a step does to the networks; nothing in it waits for a result."""
        conditional = self.config.model.conditional
        losses = self.update(
            self.players, real, labels if conditional else None, self.draw_z, self.loss, penalty
        )
        update_average(self.average, self.generator, self.decay)
        return losses

    def learn_compiled(self, real: Tensor, labels: Tensor, penalty: Penalty) -> Losses:
        """The same with compiled networks, or, where nothing here can compile, without."""
        try:
            return self.learn(real, labels, penalty)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            logger.warning("torch.compile can't be had here, so nothing is compiled: %s", reason)
            self.players.generator, self.players.discriminator = self.generator, self.discriminator
            self.run = self.learn
            return self.learn(real, labels, penalty)

    def draw_z(self) -> Tensor:
        """Fresh z ~ N(0, 1) for a batch, or for this process's part of it."""
        shape = (self.config.batch_size, self.config.model.latent_dim)
        return self.world.part(torch.randn(shape, device=self.device))

    @property
    def learning_rate(self) -> float:
        """Adam's step now: from ``lr`` to its final fraction on a cosine over the budget."""
        final, share = self.config.lr_final_fraction, self.counters.share(self.config)
        return self.config.lr * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * share)))

    @property
    def networks(self) -> dict[str, nn.Module]:
        """By the names they have in a state."""
        return {"G": self.generator, "D": self.discriminator, "ema": self.average}

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By the names they have in a state."""
        return {
            "opt_G": self.players.generator_optimizer,
            "opt_D": self.players.discriminator_optimizer,
        }

    def save(self, folder: Path, measured: dict[str, Any] | None = None) -> None:
        """Write the state to go on from, and the averaged generator as it is now.

        Raises:
            Diverged: a weight is not a number; what was written before stays.
        """
        tensors = pack_state(self.networks, self.optimizers, self.device)
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise Diverged(
                    f"{name} is not finite after {self.counters.images_seen:,} images; the last "
                    f"good state is kept in {folder}: try a lower --lr"
                )
        save_state(folder, tensors, asdict(self.counters))
        self.save_generator(folder / GENERATOR_FILE, measured)

    def save_generator(self, path: Path, measured: dict[str, Any] | None = None) -> None:
        """Write the averaged generator with its description."""
        save_tensors(path, self.average.state_dict(), self.describe(measured))

    def restore(self, folder: Path) -> list[str]:
        """Go on from a run's newest readable state; says what was wrong with newer ones."""
        path, tensors, header, problems = load_state(folder)
        unpack_state(tensors, self.networks, self.optimizers, self.device, path)
        self.counters = Counters(header["images_seen"], header["steps"], header["seconds"])
        return problems

    def agree(self) -> None:
        """Take over everything that the first of several processes knows."""
        if self.world.size == 1:
            return
        counted = list(asdict(self.counters).values())
        state = pack_state(self.networks, self.optimizers, self.device)
        state = self.world.share({**state, "counters": torch.tensor(counted, dtype=torch.float64)})
        images_seen, steps, seconds = state.pop("counters").tolist()
        self.counters = Counters(int(images_seen), int(steps), seconds)
        unpack_state(state, self.networks, self.optimizers, self.device, Path("the first process"))

    def describe(self, measured: dict[str, Any] | None = None) -> dict[str, Any]:
        """The header of the generator's file. It names the data but not where they lay."""
        config = self.config.model_dump(mode="json")
        config["data"] |= {"source": Path(self.config.data.source).name, "data_dir": None}
        return {
            "format": GENERATOR,
            "format_version": GENERATOR_VERSION,
            "config": config,
            "data": self.data_name,
            "classes": self.classes,
            "image_shape": self.image_shape,
            "value_range": [-1, 1],
            **asdict(self.counters),
            "measured": measured or {},
            "versions": {"cgan": package_version(), "torch": torch.__version__},
        }

    def sampler(self, folder: Path) -> Sampler:
        """The averaged generator, ready to be asked."""
        return Sampler(self.average, self.describe(), folder / GENERATOR_FILE)


def to_device(network: nn.Module, device: torch.device) -> nn.Module:
    """The network there, its filters channels-last: measured a tenth faster on a CPU."""
    return network.to(device).to(memory_format=torch.channels_last)


def fast(network: nn.Module, config: Config, device: torch.device) -> nn.Module:
    """The network as it is called while learning: in bfloat16, compiled, or as it is."""
    if config.bf16 and device.type == "cuda":
        plain = network.forward

        def forward(*inputs: Tensor | None) -> Tensor:
            with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
                output: Tensor = plain(*inputs)
            return output.float()  # losses and penalties are counted in full precision

        network.forward = forward
    if config.compile:
        from torch._functorch import config as functorch  # torch itself imports it late

        # `shared` goes through the graph twice, which donated buffers do not survive.
        functorch.donated_buffer = False
        compiled = torch.compile(network)
        assert isinstance(compiled, nn.Module)
        return compiled
    return network


def make_optimizer(network: nn.Module, config: Config, lr: float | Tensor) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015), all weights in one pass of fused code.

    A rate that is a tensor is read anew at each step, also by a step that was recorded.
    """
    recordable = isinstance(lr, Tensor) and lr.is_cuda
    weights = network.parameters()
    return torch.optim.Adam(weights, lr, config.betas, fused=True, capturable=recordable)


def package_version() -> str:
    """Of this package; "source" where it runs from a folder without being installed."""
    try:
        return version("cgan")
    except PackageNotFoundError:
        return "source"
