"""Generators of other programs: a torch module or an ONNX network, with the interface of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from cgan.errors import ConfigError
from cgan.runtime.cpu import count_cores

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class ForeignGenerator(nn.Module):
    """z (B, latent_dim) to images (B, C, H, W) in [-1, 1], whatever the module takes and returns.

    Args:
        module: z to images.
        latent_map: whether it takes z as (B, latent_dim, 1, 1), like a convolution.
        value_range: black and white in its images.
    """

    def __init__(
        self,
        module: nn.Module,
        latent_map: bool,
        value_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        super().__init__()
        self.module, self.latent_map, self.value_range = module, latent_map, value_range

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """One image per row of z."""
        images: Tensor = self.module(z[:, :, None, None] if self.latent_map else z)
        low, high = self.value_range
        if (low, high) != (-1, 1):
            images = (images.float() - low) * (2 / (high - low)) - 1
        return images


class OnnxGenerator(nn.Module):
    """An ONNX network with one input and one output, run by onnxruntime; it has no gradient.

    Args:
        content: the bytes of the ONNX file, uint8 (N,).
    """

    content: Tensor

    def __init__(self, content: Tensor) -> None:
        super().__init__()
        self.register_buffer("content", content)
        self._session: InferenceSession | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For copies: a session cannot be copied."""
        return {**self.__dict__, "_session": None}

    @property
    def session(self) -> InferenceSession:
        """The opened network.

        Raises:
            ConfigError: onnxruntime is not installed.
        """
        if self._session is None:
            try:
                import onnxruntime
            except ImportError as error:
                raise ConfigError(
                    "an ONNX generator needs onnxruntime: pip install 'cgan[onnx]'"
                ) from error
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4  # errors are raised, so do not print them
            options.intra_op_num_threads = count_cores()
            # Without a path, the network cannot name other files that hold its weights.
            self._session = onnxruntime.InferenceSession(
                self.content.cpu().numpy().tobytes(), options, providers=["CPUExecutionProvider"]
            )
        return self._session

    def forward(self, z: Tensor) -> Tensor:
        """The output of the network, on the device of z."""
        session = self.session
        name = session.get_inputs()[0].name
        (images,) = session.run(None, {name: z.detach().cpu().numpy().astype(np.float32)})
        return torch.from_numpy(images).to(z.device)
