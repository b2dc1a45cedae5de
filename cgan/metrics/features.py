"""Feature networks: what a picture is turned into before sets of pictures are compared.

The judge's last hidden layer by default, which costs nothing more and knows the data; Inception-v3
for figures that can be set beside the literature's. The name goes with every figure.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cgan.errors import MeasureError, UnknownName
from cgan.metrics.classifier import FEATURES, Judge

FEATURE_NAMES = ("judge", "inception")


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that is asked for features, not for classes.

    Attributes:
        name: what is written beside every figure.
        size: length of a feature vector.
        extract: pictures (B, C, H, W) in [0, 1] to features (B, size); None takes the judge's.
    """

    name: str
    size: int
    extract: Callable[[Tensor], Tensor] | None = None


def find_features(name: str, judge: Judge, device: torch.device | str = "cpu") -> FeatureNetwork:
    """The feature network of that name.

    Raises:
        UnknownName: neither ``judge`` nor ``inception``.
        MeasureError: Inception's package or its weights cannot be had.
    """
    if name == "judge":
        return FeatureNetwork(f"judge of {judge.header.data}", FEATURES)
    if name == "inception":
        return inception(device)
    raise UnknownName("feature network", name, FEATURE_NAMES)


def inception(device: torch.device | str) -> FeatureNetwork:
    """Inception-v3 as FID is reported with it in the literature, through torch-fidelity.

    Its weights (91 MB) are downloaded by torch-fidelity when they are first used.
    """
    try:
        module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError as error:
        raise MeasureError(
            "Inception features need torch-fidelity: pip install 'cgan[inception]', or measure "
            "with --features judge"
        ) from error
    try:
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    except Exception as error:  # no network, a broken mirror, a torn file
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise MeasureError(
            f"the weights of Inception-v3 could not be downloaded ({reason}): try again with a "
            "network, or measure with --features judge"
        ) from error
    network = network.eval().to(device)

    def extract(images: Tensor) -> Tensor:
        pixels = (images.to(device) * 255).round().to(torch.uint8)
        (features,) = network(pixels.expand(-1, 3, -1, -1))
        return torch.as_tensor(features)

    return FeatureNetwork("Inception-v3 (torch-fidelity)", 2048, extract)
