"""Feature networks: they map images to the features that FID and similar metrics compare.

The default is the judge's last hidden layer, which costs nothing extra and was trained on the data.
Inception-v3 gives values that can be compared with the literature. Reports name the network.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cgan.errors import MeasureError, UnknownNameError, one_line
from cgan.evaluation.classifiers import FEATURE_DIM
from cgan.evaluation.judge import Judge

FEATURE_NAMES = ("judge", "inception")


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
        UnknownNameError: neither ``judge`` nor ``inception``.
        MeasureError: Inception's package or weights are not available.
    """
    if name == "judge":
        return FeatureNetwork(judge.name, FEATURE_DIM)
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
