"""A conditional normalising flow, and the generator that it steers.

The flow f(u, y) maps u ~ N(0, I) to a latent vector z that a generator without labels draws as
class y. It is invertible with a known Jacobian, so the density of z is known too.
Dinh et al. 2017, "Density estimation using Real NVP"; with a class: Ardizzone et al. 2019.

Generators of other programs, a torch module or an ONNX network, have the interface of ours here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from cgan.errors import ConfigError, FileError, one_line
from cgan.models.conditioning import embed_labels
from cgan.models.layers import frozen
from cgan.runtime.cpu import open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


EMBEDDING_STD = 0.5
"""Standard deviation of the initial embeddings: about that of the first layer's other inputs."""


class AffineCoupling(nn.Module):
    """x₂ ↦ x₂ · exp(s(x₁, y)) + t(x₁, y): Dinh et al. 2017, equations 4 and 5.

    The label enters as a bias of the first layer, which equals an embedding that is concatenated to
    x₁, and is faster. Shapes: x₁ (B, given), x₂ (B, changed), y (B,). It starts as the identity.
    """

    def __init__(self, given: int, changed: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(given, width)
        self.embedding = nn.Embedding(num_classes, width)
        nn.init.normal_(self.embedding.weight, 0.0, EMBEDDING_STD)
        self.second = nn.Linear(width, width)
        self.out = nn.Linear(width, 2 * changed)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x1: Tensor, x2: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The new x₂, and s, (B, changed) in [-1, 1], whose sum is log |det J|."""
        h = silu(self.first(x1) + embed_labels(labels, self.embedding.weight))
        s, t = self.out(silu(self.second(h))).chunk(2, dim=1)
        s = s.tanh()  # bounded, so that a step cannot make exp(s) overflow
        return torch.addcmul(t, x2, s.exp()), s


class Flow(nn.Module):
    """z = f(u, y): u (B, latent_dim) and y (B,) to z (B, latent_dim).

    Each block changes the first half of the dimensions given the second one, and then the other way
    round. Between blocks they are rotated by a quarter, an eighth and so on, so that the halves
    differ.

    Args:
        latent_dim: length of u and z, at least 2.
        num_classes: number of labels.
        blocks: pairs of couplings.
        width: hidden units of each coupling.
    """

    def __init__(self, latent_dim: int, num_classes: int, blocks: int, width: int) -> None:
        super().__init__()
        self.middle = latent_dim // 2
        rest = latent_dim - self.middle
        self.change_first = nn.ModuleList(
            AffineCoupling(rest, self.middle, num_classes, width) for _ in range(blocks)
        )
        self.change_second = nn.ModuleList(
            AffineCoupling(self.middle, rest, num_classes, width) for _ in range(blocks)
        )

    def forward(self, u: Tensor, labels: Tensor) -> Tensor:
        """Map u to z."""
        return self.transform(u, labels)[0]

    def with_kl(self, u: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """z, and log q(z|y) − log N(z; 0, I), (B,).

        For u ~ N(0, I), log q(z|y) is log N(u; 0, I) − log |det J|, and the mean of the second
        value is KL(q(z|y) ‖ N(0, I)), in nats.
        """
        z, scales = self.transform(u, labels)
        log_det = torch.cat(scales, dim=1).sum(1)
        return z, 0.5 * (z.square().sum(1) - u.square().sum(1)) - log_det

    def transform(self, u: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """z, and the log-scales of all couplings."""
        z, scales = u, []
        couplings = zip(self.change_first, self.change_second, strict=True)
        for index, (change_first, change_second) in enumerate(couplings):
            first, second = z[:, : self.middle], z[:, self.middle :]
            first, s1 = change_first(second, first, labels)
            second, s2 = change_second(first, second, labels)
            scales += [s1, s2]
            turn = max(self.middle >> (index + 1), 1)
            z = torch.cat([first[:, turn:], second, first[:, :turn]], dim=1)
        return z, scales


class SteeredGenerator(nn.Module):
    """G(f(u, y)): a generator without labels, whose latent vectors a flow chooses by class.

    The generator is frozen: it has no gradient and stays in evaluation mode.

    A generator that cannot be differentiated gets a surrogate, which learns to draw what it draws.
    Images are still the generator's, but gradients with respect to z are those of the surrogate
    (a straight-through estimator: Bengio et al. 2013).

    Args:
        generator: z (B, latent_dim) to images (B, C, H, W) in [-1, 1].
        flow: chooses z.
        kl_weight: weight of the KL divergence in the penalty.
        surrogate: a network with the interface of the generator; None differentiates the generator.
    """

    def __init__(
        self,
        generator: nn.Module,
        flow: Flow,
        kl_weight: float = 0.0,
        surrogate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.generator = generator.requires_grad_(False)
        self.flow, self.kl_weight, self.surrogate = flow, kl_weight, surrogate
        self.train()

    def train(self, mode: bool = True) -> SteeredGenerator:
        """Set the mode of the flow and the surrogate."""
        super().train(mode)
        self.generator.eval()
        return self

    def forward(self, u: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Generate one image per row of u.

        In training mode it also returns a penalty, a scalar: the weighted KL divergence of the
        flow, plus the mean squared error of the surrogate.
        """
        if not self.training:
            images: Tensor = self.generator(self.flow(u, labels))
            return images
        z, kl = self.flow.with_kl(u, labels)
        penalty = self.kl_weight * kl.mean()
        if self.surrogate is None:
            return self.generator(z), penalty
        with torch.no_grad():
            images = self.generator(z)
        penalty = penalty + (self.surrogate(z.detach()) - images).square().mean()
        with frozen(self.surrogate):
            imitated = self.surrogate(z)
        return images + (imitated - imitated.detach()), penalty


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
