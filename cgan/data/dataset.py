"""In-memory data sets, and indices by class."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cgan.attributes import sort_for_display
from cgan.data.image_file import USUAL, Conversion
from cgan.errors import first_few

if TYPE_CHECKING:
    from cgan.data.image_folder import ImageFolder

COMPARED = 2_000
"""Images that tell whether classes differ in brightness only."""

logger = logging.getLogger("cgan")


@dataclass(frozen=True)
class ImageDataset:
    """A data set in memory.

    Attributes:
        name: the name of the data set.
        images: uint8, (N, C, H, W).
        labels: int64, (N,), indices into ``classes``.
        classes: the class names.
        source_digest: the digest of the folder that the images were read from, or None.
        num_attributes: how many attributes a class combines (``cgan.attributes``). Names never
            tell: "salt + pepper" may be one class of a single attribute.
        conversion: how the files of a folder became images.
        facts: how the folder was understood, one sentence each.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    source_digest: str | None = None
    num_attributes: int = 1
    conversion: Conversion = USUAL
    facts: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Tensor) -> Tensor:
        """The images at these indices: uint8, (len(indices), C, H, W)."""
        return self.images[indices]

    def digest(self) -> str:
        """SHA-256 of class names, images and labels, in hexadecimal.

        A folder has the same digest in memory and on disk.
        """
        if self.source_digest is not None:
            return self.source_digest
        hasher = hashlib.sha256("\0".join(self.classes).encode())
        hasher.update(self.images.cpu().contiguous().numpy().tobytes())
        hasher.update(self.labels.cpu().numpy().tobytes())
        return hasher.hexdigest()


def class_indices(labels: Tensor, generator: torch.Generator | None = None) -> dict[int, Tensor]:
    """Indices of the images of each class, by label; shuffled if a generator is given."""
    found = {}
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().squeeze(1)
        if generator is not None:
            members = members[torch.randperm(len(members), generator=generator)]
        found[label] = members
    return found


def only_brightness_differs(dataset: ImageDataset) -> bool:
    """Whether nothing but the brightness of an image tells its class.

    It compares F statistics (variance between classes divided by that within them; 1 if the classes
    are equal) of the brightness, of the image without brightness and contrast at 8×8 pixels, and of
    its fine detail.
    """
    chosen = torch.linspace(0, len(dataset) - 1, min(len(dataset), COMPARED)).long()
    images, labels = dataset.take(chosen).float(), dataset.labels[chosen]
    brightness = images.mean((1, 2, 3))
    contrast = images.std((1, 2, 3)) + 1e-3
    shape = nn.functional.adaptive_avg_pool2d(images - brightness.view(-1, 1, 1, 1), 8).flatten(1)
    detail = images.diff(dim=3).abs().mean((1, 2, 3)) / contrast
    told, shape_told, detail_told = (
        float(f_statistic(values, labels).mean())
        for values in (brightness[:, None], shape / contrast[:, None], detail[:, None])
    )
    return told > 20 and shape_told < 2 and detail_told < 5


def f_statistic(values: Tensor, labels: Tensor) -> Tensor:
    """The F statistic of each column of (N, F) values: (F,); 0 if a class has a single image."""
    classes, labels = labels.unique(return_inverse=True)
    counts = labels.bincount().float()
    if len(classes) < 2 or len(values) <= len(classes):
        return torch.zeros(values.shape[1])
    means = torch.zeros(len(classes), values.shape[1]).index_add(0, labels, values)
    means /= counts[:, None]
    between = (counts[:, None] * (means - values.mean(0)) ** 2).sum(0) / (len(classes) - 1)
    within = ((values - means[labels]) ** 2).sum(0) / (len(values) - len(classes))
    return between / within.clamp_min(1e-12)


def warn_about_classes(dataset: ImageDataset | ImageFolder, balanced: bool = False) -> None:
    """Log a warning about a single class, very small classes, and imbalance."""
    counts = torch.bincount(dataset.labels, minlength=len(dataset.classes))
    if len(dataset.classes) == 1:
        logger.warning("%s has one class only: there is nothing to choose from", dataset.name)
        return
    few = [name for name, n in zip(dataset.classes, counts.tolist(), strict=True) if n < 10]
    if few:
        logger.warning("fewer than 10 images in: %s", first_few(sort_for_display(few)))
    if isinstance(dataset, ImageDataset) and only_brightness_differs(dataset):
        logger.warning(
            "the classes of %s seem to differ in brightness only: check that the files are right",
            dataset.name,
        )
    most, least = int(counts.max()), max(int(counts.min()), 1)
    if most > 10 * least and not balanced:
        logger.warning(
            "the largest class has %d images and the smallest %d: "
            "--set data.balanced=true samples all classes equally often",
            most,
            least,
        )
