"""Features of images, and sets of them with the judge's predictions.

FID and similar metrics compare features. By default they are the judge's last hidden layer, which
costs nothing extra and was trained on the data. Features of a pretrained network can be compared
between data sets and between users, and those of Inception-v3 with the literature. Reports name
the network.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from cgan.data import ImageDataset, ImageFolder, Joined
from cgan.data.dataset import class_indices
from cgan.errors import FileError, MeasureError, UnknownNameError, one_line
from cgan.evaluation.distances import Nearest
from cgan.evaluation.judge import FEATURE_DIM, Judge
from cgan.evaluation.pretrained import FEATURES, SIDE, PretrainedFeatures, backbone
from cgan.runtime.progress import CountProgress, is_asked_for
from cgan.runtime.streams import map_streams
from cgan.sampling.request import Request
from cgan.sampling.sampler import Sampler
from cgan.storage.images import to_pixels
from cgan.storage.paths import cache_folder
from cgan.storage.tensor_cache import read_tensors, write_tensors

FEATURE_NAMES = ("judge", "pretrained", "inception")
CHUNK_VALUES = 4_000_000
"""Pixel values of real images that are held as floats at once."""
MAX_ROWS = 1_000
"""Rows of a matrix of distances that are held at once,"""
MIN_NEAREST = 256
"""and the training images that are compared with them at once, at least."""
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
        backbone(torch.device(device), 0)  # raises if it is not installed
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


CACHED = ("target", "predicted", "features", "background_level", "second_predicted")
"""The tensors of a ``FeatureSet`` that are cached."""


class Readers(NamedTuple):
    """What reads images.

    Attributes:
        judge: predicts the class of each image.
        network: gives the features of each image.
        background: mask (C, H, W) of background pixels; with None, ``background_level`` is 0.
        second_judge: predicts the class of each image too.
    """

    judge: Judge
    network: FeatureNetwork
    background: Tensor | None = None
    second_judge: Judge | None = None

    @property
    def are_slow(self) -> bool:
        """Whether a large network reads."""
        judges = [judge for judge in (self.judge, self.second_judge) if judge is not None]
        return self.network.extract is not None or any(judge.is_pretrained for judge in judges)

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides what they find, in hexadecimal."""
        second = "" if self.second_judge is None else self.second_judge.weights_digest
        hasher = hashlib.sha256(
            f"{self.judge.weights_digest} {second} {self.network.name}".encode()
        )
        if self.background is not None:
            hasher.update(self.background.numpy().tobytes())
        return hasher.hexdigest()


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


def images_per_chunk(dataset: ImageDataset | ImageFolder | Joined) -> int:
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


def extract_real_features(
    dataset: ImageDataset | ImageFolder,
    indices: Tensor,
    readers: Readers,
    keep: Tensor | None = None,
) -> FeatureSet:
    """Run the readers over the real images at these indices; see ``extract_features``.

    What a slow reader finds is cached: a function of readers and images.
    """
    if not readers.are_slow:
        return extract_features(read_images(dataset, indices), len(indices), readers, keep)
    chosen = hashlib.sha256(indices.numpy().tobytes()).hexdigest()
    key = f"1 {readers.digest} {dataset.digest()} {chosen}"
    path = cache_folder() / "features" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    if (cached := read_tensors(path, key)) is not None:
        found = {name: torch.from_numpy(tensor) for name, tensor in cached.items()}
        keep = torch.empty(0, dtype=torch.int64) if keep is None else keep
        return FeatureSet(**found, images=dataset.take(indices[keep]), kept=keep)
    found_now = extract_features(read_images(dataset, indices), len(indices), readers, keep)
    with suppress(FileError):  # without a cache they are read again
        tensors = {name: getattr(found_now, name).contiguous().numpy() for name in CACHED}
        write_tensors(path, key, tensors)
    return found_now


def extract_features(
    batches: Iterable[Labelled], total: int, readers: Readers, keep: Tensor | None = None
) -> FeatureSet:
    """Run the readers over images and labels.

    Args:
        batches: images and labels.
        total: the number of images.
        readers: what reads them.
        keep: sorted indices of the images to keep; None keeps none.
    """
    judge, network, background, second_judge = readers
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

    parts = []
    with CountProgress(total, is_asked_for()) as shown:
        for part in map_streams(extract, _with_start(batches), judge.device):
            parts.append(part)
            shown.add(len(part[0]))
    target, predicted, features, level, second, images = map(torch.cat, zip(*parts, strict=True))
    return FeatureSet(target, predicted, features, level, second, images, keep)


def _with_start(batches: Iterable[Labelled]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Each batch with the number of images before it."""
    start = 0
    for images, labels in batches:
        yield start, images, labels
        start += len(images)


def nearest_image(
    queries: Tensor, train: ImageDataset | ImageFolder | Joined, mirrored: bool = False
) -> Nearest:
    """The nearest training image of each uint8 image; distances over pixels in [0, 1].

    Args:
        queries: (N, C, H, W).
        train: the training images.
        mirrored: whether a mirrored training image counts as well.
    """
    assert len(train), "there are no training images"
    # Each chunk of training images costs a conversion of all queries.
    chunk = max(images_per_chunk(train), MIN_NEAREST)
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
        found = take_flipped(train, index[rows], flipped[rows])
        difference = queries[rows].double() - found.double()
        distance[rows] = difference.flatten(1).norm(dim=1) / 255
    return Nearest(distance, index, flipped)


def take_flipped(
    dataset: ImageDataset | ImageFolder | Joined, indices: Tensor, flipped: Tensor
) -> Tensor:
    """Images uint8 (N, C, H, W) of a data set, mirrored where ``flipped`` (N,) is true."""
    images = dataset.take(indices)
    return torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images)


def _centred(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) to float32 (N, C·H·W) in [-½, ½]: a smaller offset is more precise."""
    return images.flatten(1).float() / 255 - 0.5


def background_mask(train: ImageDataset | ImageFolder) -> Tensor:
    """Mask (C, H, W) of the pixels that are 0 in every training image."""
    brightest = torch.zeros(train.image_shape, dtype=torch.uint8)
    for indices in torch.arange(len(train)).split(images_per_chunk(train)):
        brightest = torch.maximum(brightest, train.take(indices).amax(0))
    return brightest == 0
