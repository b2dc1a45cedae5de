"""Features of images, and sets of them with the judge's predictions.

FID and similar metrics compare features. By default they are the judge's last hidden layer, which
costs nothing extra and was trained on the data. Features of a pretrained network can be compared
between data sets and between users, and those of Inception-v3 with the literature. Reports name
the network.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from scipy.stats import binom
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d, pad

from cgan.data import ImageDataset, ImageFolder
from cgan.data.dataset import class_indices
from cgan.errors import MeasureError, UnknownNameError, one_line
from cgan.evaluation.distances import Nearest
from cgan.evaluation.judge import FEATURE_DIM, Judge
from cgan.evaluation.pretrained import FEATURES, SIDE, PretrainedFeatures, backbone
from cgan.runtime.streams import map_streams
from cgan.sampling.request import Request
from cgan.sampling.sampler import Sampler
from cgan.storage.images import to_pixels

FEATURE_NAMES = ("judge", "pretrained", "inception")
CHUNK_VALUES = 4_000_000
"""Pixel values of real images that are held as floats at once."""
SPOT_DEPTH = 24
"""How much darker or lighter a spot is than all that is around it, of 255."""
SPOT_SIDE = 32
"""Images are reduced to at most this many pixels a side before spots are searched."""
SPOT_EXCESS = 0.01
"""Spots at one place are reported if they exceed those of real images by this share."""
MAX_ROWS = 1_000
"""Rows of a matrix of distances that are held at once."""
Labelled = tuple[Tensor, Tensor]
"""Images (B, C, H, W) in [0, 1] and their labels, int64 (B,)."""


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that maps images to features.

    Attributes:
        name: the name in reports.
        size: length of a feature vector.
        extract: images (B, C, H, W) in [0, 1] to features (B, size); None uses the judge's.
    """

    name: str
    size: int
    extract: Callable[[Tensor], Tensor] | None = None


def find_features(name: str, judge: Judge, device: torch.device | str = "cpu") -> FeatureNetwork:
    """Look up a feature network.

    Raises:
        UnknownNameError: no such network.
        MeasureError: its package or weights are not available.
    """
    if name == "judge":
        return FeatureNetwork(judge.name, FEATURE_DIM)
    if name == "pretrained":
        network = PretrainedFeatures().to(device)
        backbone(torch.device(device))  # raises if it is not installed
        title = f"EfficientNet-Lite0, {SIDE} px"
        return FeatureNetwork(
            title, FEATURES, lambda images: network.raw(2 * images.to(device) - 1)
        )
    if name == "inception":
        return inception(device)
    raise UnknownNameError("feature network", name, FEATURE_NAMES)


def inception(device: torch.device | str) -> FeatureNetwork:
    """Inception-v3 as the literature uses it for FID, from torch-fidelity.

    torch-fidelity downloads its weights (91 MB) on first use.
    """
    try:
        module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError as error:
        raise MeasureError(
            "Inception features need torch-fidelity: pip install 'cgan[inception]', or use "
            "--features judge"
        ) from error
    try:
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    except Exception as error:  # no network, a broken mirror, a damaged file
        raise MeasureError(
            f"the weights of Inception-v3 could not be downloaded ({one_line(error)}): try again "
            "with a network connection, or use --features judge"
        ) from error
    network = network.eval().to(device)

    def extract(images: Tensor) -> Tensor:
        pixels = (images.to(device) * 255).round().to(torch.uint8)
        (features,) = network(pixels.expand(-1, 3, -1, -1))
        return torch.as_tensor(features)

    return FeatureNetwork("Inception-v3 (torch-fidelity)", 2048, extract)


@dataclass(frozen=True)
class FeatureSet:
    """Predictions and features of one set of images.

    Attributes:
        target: the requested class, or the true one: int64 (N,).
        predicted: the class that the judge predicts: int64 (N,).
        features: (N, F).
        background_level: mean value of each image's background pixels, (N,); NaN if there are none.
        second_predicted: the class that the second judge predicts; without one, ``predicted``.
        images: a subset of the images: uint8 (M, C, H, W).
        kept: the indices of that subset, (M,).
    """

    target: Tensor
    predicted: Tensor
    features: Tensor
    background_level: Tensor
    second_predicted: Tensor
    images: Tensor
    kept: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def of_class(self, label: int) -> Tensor:
        """The features of one class."""
        return self.features[self.target == label]

    def recognised(self, label: int) -> Tensor:
        """The features of the images of one class that the judge gives to it."""
        return self.features[(self.target == label) & (self.predicted == label)]


def requested_labels(classes: int, per_class: int) -> Tensor:
    """The labels of ``draw_by_class``: int64 (classes · per_class,)."""
    return torch.arange(classes).repeat_interleave(per_class)


def draw_by_class(
    sampler: Sampler, per_class: int, seed: int = 0, truncation: float = 1.0
) -> Iterator[Labelled]:
    """Images of every class, in order, each with a seed of its own.

    With the same seeds in every class, the images of all classes would share their z, and intervals
    that assume independent images would be too narrow. An unconditional GAN draws with the same
    seeds; its images are labelled as if each class had been requested.

    Args:
        sampler: the generator.
        per_class: images of each class; class k has the seeds from ``seed + k · per_class`` on.
        seed: the first seed.
        truncation: factor of z.

    Raises:
        MeasureError: an image is not finite.
    """
    target = requested_labels(len(sampler.classes), per_class)
    labels = tuple(target.tolist()) if sampler.conditional else None
    seeds = tuple(range(seed, seed + len(target)))
    request = Request(labels, seeds, truncation=truncation)
    start = 0
    for images, _ in sampler.batches(request):
        if not images.isfinite().all():
            raise MeasureError(
                f"{sampler.name} generates values that are not finite: its training diverged, "
                "so train it again with a lower --lr"
            )
        yield images, target[start : start + len(images)]
        start += len(images)


def read_images(dataset: ImageDataset | ImageFolder, indices: Tensor) -> Iterator[Labelled]:
    """The real images at these indices and their labels."""
    for chunk in indices.split(min(500, images_per_chunk(dataset))):
        yield dataset.take(chunk) / 255, dataset.labels[chunk]


def images_per_chunk(dataset: ImageDataset | ImageFolder) -> int:
    """How many images are processed at once."""
    return max(CHUNK_VALUES // prod(dataset.image_shape), 1)


def sample_per_class(dataset: ImageDataset | ImageFolder, per_class: int) -> Tensor:
    """Indices of up to ``per_class`` images of each class, chosen with a fixed seed."""
    shuffled = class_indices(dataset.labels, torch.Generator().manual_seed(0))
    return torch.cat([members[:per_class] for members in shuffled.values()])


def evenly_spaced(values: Tensor, wanted: int) -> Tensor:
    """``wanted`` evenly spaced rows, or all of them if there are fewer."""
    if len(values) <= wanted:
        return values
    return values[torch.arange(wanted) * len(values) // wanted]


def first_of_each_class(target: Tensor, counts: Tensor) -> Tensor:
    """Indices, sorted, of the first ``counts[k]`` images of each class k."""
    found = [(target == k).nonzero().squeeze(1)[:count] for k, count in enumerate(counts.tolist())]
    return torch.cat(found).sort().values


def extract_features(
    batches: Iterable[Labelled],
    judge: Judge,
    network: FeatureNetwork,
    background: Tensor | None = None,
    keep: Tensor | None = None,
    second_judge: Judge | None = None,
) -> FeatureSet:
    """Run the judges and the feature network over images and labels.

    Args:
        batches: images and labels.
        judge: predicts the class of each image.
        network: gives the features of each image.
        background: mask (C, H, W) of background pixels; with None, ``background_level`` is 0.
        keep: sorted indices of the images to keep; None keeps none.
        second_judge: predicts the class of each image too.
    """
    keep = torch.empty(0, dtype=torch.int64) if keep is None else keep

    def extract(batch: tuple[int, Tensor, Tensor]) -> tuple[Tensor, ...]:
        start, images, labels = batch
        predicted, features = judge.predict(images)
        second = predicted if second_judge is None else second_judge.classify(images)
        if network.extract is not None:
            features = network.extract(images)
        wanted = keep[(keep >= start) & (keep < start + len(images))] - start
        kept = to_pixels(images[wanted.to(images.device)])
        level = images.new_zeros(len(images))
        if background is not None:
            level = images[:, background.to(images.device)].mean(1)  # NaN if the mask is empty
        found = (labels, predicted, features, level, second, kept)
        return tuple(one.cpu() for one in found)

    parts = map_streams(extract, _with_start(batches), judge.device)
    target, predicted, features, level, second, images = map(torch.cat, zip(*parts, strict=True))
    return FeatureSet(target, predicted, features, level, second, images, keep)


def _with_start(batches: Iterable[Labelled]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Each batch with the number of images before it."""
    start = 0
    for images, labels in batches:
        yield start, images, labels
        start += len(images)


def nearest_image(
    queries: Tensor, train: ImageDataset | ImageFolder, mirrored: bool = False
) -> Nearest:
    """The nearest training image of each uint8 image; distances over pixels in [0, 1].

    Args:
        queries: (N, C, H, W).
        train: the training images.
        mirrored: whether a mirrored training image counts as well.
    """
    assert len(train), "there are no training images"
    chunk = images_per_chunk(train)
    blocks = torch.arange(len(queries)).split(min(chunk, MAX_ROWS))
    score = torch.full((len(queries),), torch.inf)
    index = torch.zeros(len(queries), dtype=torch.int64)
    flipped = torch.zeros(len(queries), dtype=torch.bool)
    for indices in torch.arange(len(train)).split(chunk):
        images = train.take(indices)
        for flip in (False, True) if mirrored else (False,):
            points = _centred(images.flip(3) if flip else images)
            lengths = points.square().sum(1)
            for rows in blocks:
                # ‖q − p‖² without the length of q, which does not change the order
                least, here = (lengths - 2 * _centred(queries[rows]) @ points.T).min(1)
                nearer = least < score[rows]
                score[rows] = torch.where(nearer, least, score[rows])
                index[rows] = torch.where(nearer, indices[here], index[rows])
                flipped[rows] = torch.where(nearer, flip, flipped[rows])
    distance = torch.empty(len(queries), dtype=torch.float64)
    for rows in blocks:  # exact differences, so that a copy has the distance 0
        found = train.take(index[rows])
        found = torch.where(flipped[rows].view(-1, 1, 1, 1), found.flip(3), found)
        difference = queries[rows].double() - found.double()
        distance[rows] = difference.flatten(1).norm(dim=1) / 255
    return Nearest(distance, index)


def _centred(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) to float32 (N, C·H·W) in [-½, ½]: a smaller offset is more precise."""
    return images.flatten(1).float() / 255 - 0.5


class Spot(NamedTuple):
    """The place where isolated spots are most frequent, compared with real images.

    Attributes:
        kind: ``dark`` or ``light``.
        row, column: the place, in an image of at most ``SPOT_SIDE`` pixels a side.
        share: share of the generated images that have such a spot there.
        real: the same of real images, the highest of the place and its neighbours.
        is_fixed: whether it is so much more frequent that a viewer sees it in a grid.
    """

    kind: str
    row: int
    column: int
    share: float
    real: float
    is_fixed: bool

    @property
    def sentence(self) -> str:
        """The defect in words."""
        return (
            f"{self.kind} dots: {self.share:.1%} of the images have one at the same place (row "
            f"{self.row + 1}, column {self.column + 1}), and {self.real:.1%} of real images"
        )


def spot_shares(images: Tensor) -> Tensor:
    """How many images have an isolated spot at each place, as shares.

    A dark spot is a pixel that is darker than the sixteen pixels around it at a distance of two, by
    ``SPOT_DEPTH``, and the darkest of the 3×3 around it; a light one likewise. Large images are
    reduced first.

    Args:
        images: uint8 (N, C, H, W).

    Returns:
        (2, H, W): dark and light ones.
    """
    grey = images.float().mean(1, keepdim=True)
    if (side := max(grey.shape[2:])) > SPOT_SIDE:
        size = [max(length * SPOT_SIDE // side, 1) for length in grey.shape[2:]]
        grey = interpolate(grey, size, mode="area")
    height, width = grey.shape[2:]
    ring = [(i, j) for i in range(5) for j in range(5) if {i, j} & {0, 4}]
    found = []
    for values in (grey, 255 - grey):
        framed = pad(values, (2, 2, 2, 2), mode="replicate")
        around = framed[:, :, :height, :width]
        for i, j in ring:  # not unfold, whose threads meet once an image
            around = torch.minimum(around, framed[:, :, i : i + height, j : j + width])
        least = -max_pool2d(-values, 3, stride=1, padding=1)
        spots = (values == least) & (around - values > SPOT_DEPTH)
        found.append(spots.float().mean((0, 1)))
    return torch.stack(found)


def worst_spot(images: Tensor, real: Tensor) -> Spot:
    """Where spots exceed those of real images most.

    Args:
        images: generated images, uint8 (N, C, H, W).
        real: ``spot_shares`` of real images.
    """
    shares = spot_shares(images)
    expected = max_pool2d(real, 3, stride=1, padding=1)
    at = int((shares - expected).argmax())
    kind, place = divmod(at, shares[0].numel())
    row, column = divmod(place, shares.shape[2])
    share, usual = float(shares.flatten()[at]), float(expected.flatten()[at])
    count = round(share * len(images))
    chance = float(binom.sf(count - 1, len(images), max(usual, 1e-3))) * shares.numel()
    fixed = chance < 1e-3 and share > 3 * usual and share - usual > SPOT_EXCESS
    return Spot(("dark", "light")[kind], row, column, share, usual, fixed)


def background_mask(train: ImageDataset | ImageFolder) -> Tensor:
    """Mask (C, H, W) of the pixels that are 0 in every training image."""
    brightest = torch.zeros(train.image_shape, dtype=torch.uint8)
    for indices in torch.arange(len(train)).split(images_per_chunk(train)):
        brightest = torch.maximum(brightest, train.take(indices).amax(0))
    return brightest == 0
