"""Turn class names into class indices, and a request into one label and one seed per image.

Nothing here imports torch.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from cgan.attributes import display_order, match_values, num_attributes_of, sort_for_display
from cgan.errors import ConfigError, UnconditionalError, UnknownNameError
from cgan.storage.paths import CONFIG_FILE, GENERATOR_FILE, PACKAGED, hub_name, hub_title
from cgan.storage.safe_reading import file_digest

MIX_TOLERANCE = 0.011
"""The weights of a mix may differ from 1 in sum by this much, because people write 0.33 for 1/3."""


@runtime_checkable
class Indices(Protocol):
    """Class indices: an int64 torch tensor or a NumPy array."""

    def flatten(self) -> Any:
        """One dimension."""
        ...

    def tolist(self) -> Any:
        """Python ints."""
        ...


MAX_IMAGES = 10_000_000
"""Images of a class in one request."""

Labels = str | int | Sequence[str | int] | Indices | None


@dataclass(frozen=True)
class Request:
    """Images to draw.

    Attributes:
        labels: the class index of each; None if unconditional, or if all are of one mix.
        seeds: the seed of each.
        mix: the weight of each class, if all images are of a mix of classes.
        truncation: factor of z.
    """

    labels: tuple[int, ...] | None
    seeds: tuple[int, ...]
    mix: tuple[float, ...] | None = None
    truncation: float = 1.0

    def __len__(self) -> int:
        return len(self.seeds)


class GeneratorInfo:
    """What the header of a generator file says about the generator; independent of the backend.

    Attributes:
        header: the file's header.
        path: the generator file.
        classes: class names of its data. An unconditional GAN has them too, but takes no class.
        num_attributes: how many attributes a class combines (``cgan.attributes``).
        image_shape: (C, H, W) of its images.
        latent_dim: length of z.
        conditional: whether it takes a class.
    """

    def __init__(self, header: Mapping[str, Any], path: Path) -> None:
        self.header, self.path = dict(header), path
        self.classes: tuple[str, ...] = tuple(header["classes"])
        self.num_attributes = num_attributes_of(header)
        channels, height, width = header["image_shape"]
        self.image_shape: tuple[int, int, int] = (channels, height, width)
        model = header["config"]["model"]
        self.latent_dim = int(model["latent_dim"])
        self.conditional = bool(model["conditional"])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its file; empty without one. ``load`` sets it before it reads the weights,
        because a training may replace the file."""
        return file_digest(self.path) if self.path.is_file() else ""

    @property
    def name(self) -> str:
        """Its name in the package or on the Hub, its run folder, or its file."""
        path = self.path
        if on_hub := hub_name(path):
            return on_hub
        if path.parent.parent == PACKAGED:
            return f"{path.parent.name} (in the package)"
        in_run = path.name == GENERATOR_FILE and (path.parent / CONFIG_FILE).exists()
        return str(path.parent if in_run else path)

    @property
    def title(self) -> str:
        """A name without a path: of the repository on the Hub, of its folder, or of its file."""
        if on_hub := hub_title(self.path):
            return on_hub
        path = Path(os.path.abspath(self.path))  # "." has no name; a link keeps its own
        return path.parent.name if path.name == GENERATOR_FILE else path.stem

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def has_digits(self) -> bool:
        """Whether every class name is a single digit."""
        return all(name.isdigit() and len(name) == 1 for name in self.classes)

    def request(
        self,
        labels: Labels = None,
        n: int = 1,
        seed: int = 0,
        mix: Mapping[str, float] | None = None,
        truncation: float = 1.0,
    ) -> Request:
        """The class indices and seeds that ``sample`` uses for the same arguments.

        The k-th image of a class has the seed ``seed + k``.

        Raises:
            UnknownNameError: no such class.
            UnconditionalError: a class or a mix was requested from an unconditional GAN.
            ConfigError: ``n`` is less than 1, seed or truncation are out of range, the weights of
                the mix do not sum to 1, or both labels and a mix are given.
        """
        n, seed = _whole_number("n", n), _whole_number("seed", seed)
        if not 0 <= truncation <= 1:
            raise ConfigError(f"truncation is a factor from 0 to 1, not {truncation:g}")
        if n < 1:
            raise ConfigError(f"n is the number of images per class: at least 1, not {n}")
        if n > MAX_IMAGES:
            raise ConfigError(
                f"n is at most {MAX_IMAGES:,}, not {n:,}: draw images in parts by seed"
            )
        if not 0 <= seed <= 2**63 - 1 - n:
            raise ConfigError(f"a seed is a whole number from 0 to 2^63 - 1 - n, not {seed}")
        if not self.conditional:
            if labels is not None or mix is not None:
                raise UnconditionalError(
                    "a plain GAN cannot choose the class: give it class control with "
                    f"cgan steer {shlex.quote(self.name)}, or train a conditional one"
                )
            return Request(None, tuple(range(seed, seed + n)), truncation=truncation)
        if mix is not None:
            if labels is not None:
                raise ConfigError("give either classes or a mix of classes")
            return Request(None, tuple(range(seed, seed + n)), self.mix_weights(mix), truncation)
        indices = [label for label in self.class_indices(labels) for _ in range(n)]
        if not indices:
            raise ConfigError("name at least one class, or leave out labels to draw every class")
        drawn: Counter[int] = Counter()
        seeds = []
        for label in indices:
            seeds.append(seed + drawn[label])
            drawn[label] += 1
        if max(seeds) > 2**63 - 2:  # a class was named several times
            raise ConfigError(f"a seed is at most 2^63 - 2, and {seed} is too close to it")
        return Request(tuple(indices), tuple(seeds), truncation=truncation)

    def mix_weights(self, mix: Mapping[str, float]) -> tuple[float, ...]:
        """The weight of each class in a mix, which names classes and their weights.

        Raises:
            UnknownNameError: no such class.
            ConfigError: a weight is negative, or they do not sum to 1.
        """
        weights = [0.0] * len(self.classes)
        for name, weight in mix.items():
            if not weight >= 0:
                raise ConfigError(f"the weight of {name!r} in the mix is {weight:g}: use 0 to 1")
            weights[self._class_index(name)] += weight
        total = sum(weights)
        if not abs(total - 1) <= MIX_TOLERANCE:
            raise ConfigError(f"the weights of the mix sum to {total:g}, not to 1")
        return tuple(weight / total for weight in weights)

    def class_indices(self, labels: Labels) -> list[int]:
        """Class indices of names, digits, a list of them, or an index tensor; None means all.

        Where classes combine attributes, values choose all classes that have them
        (``cgan.attributes.match_values``).
        """
        if labels is None:
            return list(range(len(self.classes)))
        if isinstance(labels, Indices) and getattr(labels, "shape", None) == ():
            labels = labels.tolist()  # one value of NumPy or torch is like one of Python
        if isinstance(labels, Indices):
            indices = [_whole_number("a class index", index) for index in labels.flatten().tolist()]
            self.check_numbers(indices)
            return indices
        if isinstance(labels, str | int):
            labels = [labels]
        elif not isinstance(labels, Sequence):
            raise ConfigError(f"a class is a name or a whole number, not {labels!r}")
        if self.num_attributes == 1:
            return [self._class_index(label) for label in labels]
        values = [one for one in labels if isinstance(one, str) and one not in self.classes]
        whole = [self._class_index(one) for one in labels if one not in values]
        matching = match_values(self.classes, self.num_attributes, values) if values else []
        return [*whole, *(index for index in matching if index not in whole)]

    def check_numbers(self, indices: Sequence[int]) -> None:
        """Raise ``UnknownNameError`` unless each index is in 0..K − 1 for K classes."""
        wrong = [index for index in indices if not 0 <= index < len(self.classes)]
        if wrong:
            raise UnknownNameError("class number", wrong[0], self._numbers())

    def grid_rows(self, labels: Sequence[str] | None) -> list[int]:
        """The classes of the rows of a grid, as indices, for the arguments of ``class_indices``.

        Classes that are named are in the order of their names. All others, which nobody named one
        by one, are in the order in which people see them (``cgan.attributes.display_order``).
        """
        rows = self.class_indices(labels)
        named = sum(one in self.classes for one in labels or ())
        place = {index: rank for rank, index in enumerate(display_order(self.classes))}
        return [*rows[:named], *sorted(rows[named:], key=place.__getitem__)]

    def _class_index(self, label: str | int) -> int:
        """Look up a name; an int is an index unless some class name is a number."""
        label = label if isinstance(label, str) else _whole_number("a class index", label)
        name = str(label)
        if name in self.classes:
            return self.classes.index(name)
        if isinstance(label, int) and not any(known.isdigit() for known in self.classes):
            if 0 <= label < len(self.classes):
                return label
            raise UnknownNameError("class number", label, self._numbers())
        raise UnknownNameError("class", name, sort_for_display(self.classes))

    def _numbers(self) -> list[str]:
        return [str(index) for index in range(len(self.classes))]


def _whole_number(name: str, value: Any) -> int:
    """An int, also of NumPy; raises ``ConfigError`` for anything else."""
    try:
        return index(value)
    except TypeError:
        raise ConfigError(f"{name} is a whole number, not {value!r}") from None
