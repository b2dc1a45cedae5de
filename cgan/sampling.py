"""The Sampler: asks a trained generator for classes by name.

A picture is a function of model, class and seed alone. The k-th picture of a class in a request
has the seed ``seed + k``, and z is drawn for each seed by itself. Networks run on batches of one
fixed size, the last one filled up, so that not even the rounding depends on how many are drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from cgan.checkpoint import (
    CONFIG_FILE,
    GENERATOR,
    GENERATOR_FILE,
    GENERATOR_VERSION,
    PACKAGED,
    load_weights,
    read_header,
    read_tensors,
)
from cgan.config import Config, make_config
from cgan.errors import CganError, ConfigError, FileError, MeasureError, UnknownName
from cgan.images import to_unit
from cgan.latents import draw_latents, draw_normals
from cgan.models import build_networks

DESCRIPTION = ("data", "images_seen", "seconds", "measured", "versions")
"""What a header says beside its config, classes and shape."""

BATCH = {"cpu": 64, "cuda": 4_096}
"""Pictures drawn at once, always: rounding depends on it."""

VERIFY_LIMIT = 100
"""Draws of one picture after which a judge's disagreement is an error."""

Labels = str | int | Sequence[str | int] | Tensor | None


class PlainGan(CganError):
    """A plain GAN was asked for a class."""


@dataclass(frozen=True)
class Request:
    """Pictures to draw: the class (index) and seed of each; class None where the GAN is plain."""

    labels: tuple[int, ...] | None
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.seeds)


class Names(Protocol):
    """Whoever names pictures: a :class:`cgan.metrics.classifier.Judge`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names it knows, in the order of its answers."""
        ...

    def classify(self, images: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [0, 1] to int64 (B,)."""
        ...


@dataclass
class Verifier:
    """Redraws what its judge does not take for the class that was asked for, and keeps count.

    A picture that is refused gets the next z of its own seed's sequence, so that it stays a
    function of model, class, seed and judge. What it lets through says nothing of the generator's
    own control, and ``acceptance`` little: classes that it obeys less are drawn more often.
    """

    judge: Names
    drawn: int = 0
    accepted: int = 0

    @property
    def acceptance(self) -> float:
        """Share of draws that the judge agreed with, in [0, 1]."""
        return self.accepted / max(self.drawn, 1)


class Sampler:
    """A generator with the names of its classes.

    Attributes:
        generator: the network, in evaluation mode.
        classes: the class names of the data; a plain GAN has them too but can't choose.
        header: what the file says of itself.
        path: the generator file.
    """

    def __init__(self, generator: nn.Module, header: dict[str, Any], path: Path) -> None:
        # Channels-last as it was trained: another layout rounds otherwise.
        self.generator = generator.eval().requires_grad_(False)
        self.generator.to(memory_format=torch.channels_last)
        self.header, self.path = header, path
        self.classes: tuple[str, ...] = tuple(header["classes"])
        self.config: Config = make_config(header["config"])
        channels, height, width = header["image_shape"]
        self.image_shape: tuple[int, int, int] = (channels, height, width)

    @property
    def conditional(self) -> bool:
        """Whether it can be told a class."""
        return self.config.model.conditional

    @property
    def name(self) -> str:
        """What it is called: by its name in the package, its run's folder, or its file."""
        path = self.path
        if path.parent.parent == PACKAGED:
            return f"{path.parent.name} (in the package)"
        in_run = path.name == GENERATOR_FILE and (path.parent / CONFIG_FILE).exists()
        return str(path.parent if in_run else path)

    @property
    def has_digits(self) -> bool:
        """Whether the classes are called by digits."""
        return all(name.isdigit() and len(name) == 1 for name in self.classes)

    @property
    def device(self) -> torch.device:
        """Where it draws."""
        return next(self.generator.parameters()).device

    @property
    def batch(self) -> int:
        """Pictures it draws at once."""
        return BATCH[self.device.type]

    def to(self, device: torch.device | str) -> Sampler:
        """Itself, moved."""
        self.generator.to(device)
        return self

    def sample(
        self,
        labels: Labels = None,
        n: int = 1,
        seed: int = 0,
        verify: Names | Verifier | None = None,
    ) -> Tensor:
        """Draw pictures.

        Args:
            labels: a class by name (``"cat"``) or digit (``7``), a list of them, or an int64
                tensor of class indices; None is every class, or no class if the GAN is plain.
            n: pictures for each label that was given.
            seed: the first picture of each class has this seed, the next one the next.
            verify: a judge, or a :class:`Verifier` that counts; what it does not take for the
                class asked for is drawn again.

        Returns:
            float32 in [0, 1], (labels · n, C, H, W), label by label, on the CPU.

        Raises:
            UnknownName: no such class.
            PlainGan: a class was asked of a plain GAN, or its pictures to be verified.
            MeasureError: the judge knows other classes, or never agreed.
        """
        request = self.request(labels, n, seed)
        pictures = torch.empty(len(request), *self.image_shape)
        start = 0
        for batch, _ in self.batches(request, verify):
            pictures[start : start + len(batch)] = batch.cpu()
            start += len(batch)
        return pictures

    def request(self, labels: Labels = None, n: int = 1, seed: int = 0) -> Request:
        """What :meth:`sample` of the same arguments draws."""
        if n < 1:
            raise ConfigError(f"n is the number of pictures a class: at least 1, not {n}")
        if not 0 <= seed <= 2**63 - 1 - n:
            raise ConfigError(f"a seed is a whole number from 0 to 2^63 - 1, not {seed}")
        if not self.conditional:
            if labels is not None:
                raise PlainGan(
                    "a plain GAN can't choose what it draws; train one that can: "
                    f"cgan train --conditional {self.config.name}"
                )
            return Request(None, tuple(range(seed, seed + n)))
        indices = [label for label in self.find(labels) for _ in range(n)]
        drawn: Counter[int] = Counter()
        seeds = []
        for label in indices:
            seeds.append(seed + drawn[label])
            drawn[label] += 1
        return Request(tuple(indices), tuple(seeds))

    def batches(
        self, request: Request, verify: Names | Verifier | None = None
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Pictures (≤ ``batch``, C, H, W) in [0, 1] and their classes, in order, on the device."""
        if verify is not None and not isinstance(verify, Verifier):
            verify = Verifier(verify)
        if verify is not None:
            self._check(verify, request)
        for start in range(0, len(request), self.batch):
            seeds = request.seeds[start : start + self.batch]
            labels = None
            if request.labels is not None:
                chosen = request.labels[start : start + self.batch]
                labels = torch.tensor(chosen, device=self.device)
            pictures = self._draw(seeds, labels)
            if verify is not None and labels is not None:
                self._redraw(pictures, seeds, labels, verify)
            yield pictures, labels

    def _draw(
        self, seeds: Sequence[int], labels: Tensor | None, attempts: Sequence[int] | None = None
    ) -> Tensor:
        """At most one batch of pictures, drawn as a full one."""
        missing = self.batch - len(seeds)
        z = functional.pad(self._draw_z(seeds, attempts), (0, 0, 0, missing))
        if labels is not None:
            labels = functional.pad(labels, (0, missing))
        with torch.inference_mode():
            return to_unit(self.generator(z, labels))[: len(seeds)]

    def _draw_z(self, seeds: Sequence[int], attempts: Sequence[int] | None) -> Tensor:
        """Where the networks are: NumPy's on the CPU, as where there is no torch."""
        latent_dim = self.config.model.latent_dim
        if self.device.type == "cpu":
            return torch.from_numpy(draw_latents(seeds, latent_dim, attempts))
        passed = torch.tensor(attempts or [0] * len(seeds), device=self.device)
        z: Tensor = draw_normals(torch, torch.tensor(seeds, device=self.device), passed, latent_dim)
        return z

    @torch.inference_mode()
    def _redraw(
        self, pictures: Tensor, seeds: Sequence[int], labels: Tensor, verify: Verifier
    ) -> None:
        """Replace, in place, what the judge does not take for its class, until it does."""
        waiting = list(range(len(seeds)))
        for attempt in range(VERIFY_LIMIT):
            if attempt:
                again = [seeds[index] for index in waiting]
                pictures[waiting] = self._draw(again, labels[waiting], [attempt] * len(waiting))
            named = verify.judge.classify(pictures[waiting]).to(labels.device)
            agreed = (named == labels[waiting]).tolist()
            verify.drawn += len(waiting)
            verify.accepted += sum(agreed)
            waiting = [index for index, yes in zip(waiting, agreed, strict=True) if not yes]
            if not waiting:
                return
        name, seed = self.classes[int(labels[waiting[0]])], seeds[waiting[0]]
        raise MeasureError(
            f"the judge took none of {VERIFY_LIMIT} draws of seed {seed} for {name!r}: this "
            "generator obeys too rarely to be verified (see cgan evaluate); train it longer"
        )

    def _check(self, verify: Verifier, request: Request) -> None:
        if request.labels is None:
            raise PlainGan("a plain GAN is asked for no class, so there is nothing to verify")
        if verify.judge.classes != self.classes:
            raise MeasureError(
                f"the judge knows {', '.join(verify.judge.classes[:5])}… and the generator draws "
                f"{', '.join(self.classes[:5])}…: give a judge of the data it was trained on"
            )

    def find(self, labels: Labels) -> list[int]:
        """Class indices of names, digits, a list of them or a tensor of indices; None is all."""
        if labels is None:
            return list(range(len(self.classes)))
        if isinstance(labels, Tensor):
            indices = [int(index) for index in labels.flatten().tolist()]
            wrong = [index for index in indices if not 0 <= index < len(self.classes)]
            if wrong:
                raise UnknownName("class number", wrong[0], self._numbers())
            return indices
        if isinstance(labels, str | int):
            labels = [labels]
        return [self._find_one(label) for label in labels]

    def _find_one(self, label: str | int) -> int:
        """By name; a number where no class is called by a number is an index."""
        name = str(label)
        if name in self.classes:
            return self.classes.index(name)
        if isinstance(label, int) and not any(known.isdigit() for known in self.classes):
            if 0 <= label < len(self.classes):
                return label
            raise UnknownName("class number", label, self._numbers())
        raise UnknownName("class", name, self.classes)

    def _numbers(self) -> list[str]:
        return [str(index) for index in range(len(self.classes))]


def packaged_names() -> list[str]:
    """The generators that come with the package."""
    return sorted(path.parent.name for path in PACKAGED.glob(f"*/{GENERATOR_FILE}"))


def load(path_or_run: str | Path, device: torch.device | str = "cpu") -> Sampler:
    """Load a generator.

    Args:
        path_or_run: a generator file, the folder of a run, or ``"mnist"``, which is in the package.
        device: where it shall draw.

    Raises:
        FileError: there is none, or the file is not a generator.
    """
    path = Path(path_or_run)
    if not path.exists() and str(path) in packaged_names():
        path = PACKAGED / path.name
    if path.is_dir():
        path = path / GENERATOR_FILE
        if not path.exists():
            raise FileError(f"{path.parent} holds no {GENERATOR_FILE}: is it the folder of a run?")
    elif not path.exists():
        raise FileError(f"there is no run or generator file {path}")
    header = read_header(path, GENERATOR, GENERATOR_VERSION)
    try:
        config, classes = make_config(header["config"]), header["classes"]
        channels, height, width = map(int, header["image_shape"])
        if missing := [key for key in DESCRIPTION if key not in header]:
            raise ValueError(f"{', '.join(missing)} missing")
        if not isinstance(classes, list):
            raise TypeError("classes is not a list")
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise FileError(f"{path} has a header that cannot be understood: {error}") from error
    with torch.random.fork_rng([]):  # the weights drawn here are thrown away
        generator = build_networks(config.model, (channels, height, width), len(classes)).generator
    load_weights(generator, read_tensors(path), path)
    return Sampler(generator, header, path).to(device)
