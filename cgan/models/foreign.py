"""Generators of other programs: a torch module or an ONNX network, with the interface of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cgan.errors import ConfigError, FileError, one_line
from cgan.runtime.onnx_session import open_session

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
        images = self.module(z[:, :, None, None] if self.latent_map else z)
        if not isinstance(images, Tensor):
            raise TypeError(f"it returns a {type(images).__name__}, not a tensor of images")
        low, high = self.value_range
        if (low, high) != (-1, 1):
            images = (images - low) * (2 / (high - low)) - 1
        return images.float()


class OnnxGenerator(nn.Module):
    """An ONNX network with one input and one output, run by onnxruntime; it has no gradient.

    Args:
        content: the bytes of the ONNX file, uint8 (N,).
        image_shape: (C, H, W) of its images; None accepts any.
    """

    content: Tensor

    def __init__(self, content: Tensor, image_shape: tuple[int, int, int] | None = None) -> None:
        super().__init__()
        self.register_buffer("content", content)
        self.image_shape = image_shape
        self._session: InferenceSession | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For copies: a session cannot be copied."""
        return {**self.__dict__, "_session": None}

    def open(self) -> InferenceSession:
        """The opened network.

        Raises:
            ConfigError: onnxruntime is not installed.
            FileError: it cannot read the network.
        """
        if self._session is None:
            content = self.content.cpu().numpy().tobytes()
            try:
                self._session = open_session(content, spinning=False)
            except ImportError as error:
                raise ConfigError(
                    "an ONNX generator needs onnxruntime: pip install 'cgan[onnx]'"
                ) from error
            except Exception as error:  # onnxruntime's exceptions have no common base class
                raise FileError(
                    f"onnxruntime cannot read the network ({one_line(error)})"
                ) from error
        return self._session

    def forward(self, z: Tensor) -> Tensor:
        """The output of the network, on the device of z.

        Raises:
            FileError: the network fails, or its output has another shape than its images.
        """
        session = self.open()
        inputs = {session.get_inputs()[0].name: z.detach().cpu().float().numpy()}
        try:
            (found,) = session.run(None, inputs)
        except Exception as error:  # see above
            raise FileError(f"onnxruntime cannot run the network ({one_line(error)})") from error
        if self.image_shape is not None and found.shape != (len(z), *self.image_shape):
            raise FileError(f"the ONNX network returns {list(found.shape)}, not images of its file")
        return torch.from_numpy(found).to(z.device)
