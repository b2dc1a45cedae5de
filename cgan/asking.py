"""What a generator is called and what it can be asked for: names become classes and seeds.

Nothing here draws, so nothing here needs torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from cgan.errors import CganError, ConfigError, UnknownName
from cgan.places import CONFIG_FILE, GENERATOR_FILE, PACKAGED


@runtime_checkable
class Indices(Protocol):
    """Class indices: an int64 tensor of torch, or an array of NumPy."""

    def flatten(self) -> Any:
        """In one row."""
        ...

    def tolist(self) -> Any:
        """As ints of Python."""
        ...


Labels = str | int | Sequence[str | int] | Indices | None


class PlainGan(CganError):
    """A plain GAN was asked for a class."""


@dataclass(frozen=True)
class Request:
    """Pictures to draw: the class (index) and seed of each; class None where the GAN is plain."""

    labels: tuple[int, ...] | None
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.seeds)


class Described:
    """A generator as its header describes it, whatever draws its pictures.

    Attributes:
        header: what the file says of itself.
        path: the generator file.
        classes: the class names of the data; a plain GAN has them too but can't choose.
        image_shape: (C, H, W) of its pictures.
    """

    def __init__(self, header: Mapping[str, Any], path: Path) -> None:
        self.header, self.path = dict(header), path
        self.classes: tuple[str, ...] = tuple(header["classes"])
        channels, height, width = header["image_shape"]
        self.image_shape: tuple[int, int, int] = (channels, height, width)
        model = header["config"]["model"]
        self.latent_dim = int(model["latent_dim"])
        self.conditional = bool(model["conditional"])
        """Whether it can be told a class."""

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

    def request(self, labels: Labels = None, n: int = 1, seed: int = 0) -> Request:
        """Classes and seeds of the pictures that ``sample`` of the same arguments draws.

        Raises:
            UnknownName: no such class.
            PlainGan: a class was asked of a plain GAN.
            ConfigError: less than one picture, or no seed.
        """
        if n < 1:
            raise ConfigError(f"n is the number of pictures a class: at least 1, not {n}")
        if not 0 <= seed <= 2**63 - 1 - n:
            raise ConfigError(f"a seed is a whole number from 0 to 2^63 - 1, not {seed}")
        if not self.conditional:
            if labels is not None:
                raise PlainGan(
                    "a plain GAN can't choose what it draws; train one that can: "
                    f"cgan train --conditional {self.header['config']['name']}"
                )
            return Request(None, tuple(range(seed, seed + n)))
        indices = [label for label in self.find(labels) for _ in range(n)]
        drawn: Counter[int] = Counter()
        seeds = []
        for label in indices:
            seeds.append(seed + drawn[label])
            drawn[label] += 1
        return Request(tuple(indices), tuple(seeds))

    def find(self, labels: Labels) -> list[int]:
        """Class indices of names, digits, a list of them or a tensor of indices; None is all."""
        if labels is None:
            return list(range(len(self.classes)))
        if isinstance(labels, Indices):
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
