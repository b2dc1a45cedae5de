"""Files of latent vectors, from which a generator draws the same images again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cgan.errors import FileError
from cgan.storage.checkpoint import LATENTS, new_header, open_checkpoint, save_tensors
from cgan.storage.weights import check_finite


@dataclass(frozen=True)
class Latents:
    """Latent vectors and their classes.

    Attributes:
        z: float32 (N, latent_dim).
        labels: the weight of each class, float32 (N, classes); None if unconditional.
        classes: the class names.
    """

    z: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write them as one safetensors file."""
        labels = {} if self.labels is None else {"labels": self.labels}
        save_tensors(
            path, {"z": self.z, **labels}, {**new_header(LATENTS), "classes": self.classes}
        )

    @classmethod
    def load(cls, path: Path) -> Latents:
        """Read a file of ``save``.

        Raises:
            FileError: it is none, or its tensors do not fit its header.
        """
        with open_checkpoint(path, LATENTS) as file:
            classes, layout = tuple(file.header["classes"]), file.layout()
            fits = "z" in layout and not layout.keys() - {"z", "labels"}
            for name, (dtype, shape) in layout.items():
                fits = fits and dtype == "F32" and len(shape) == 2
                fits = fits and shape[0] == layout["z"][1][0] > 0
                fits = fits and (name == "z" or shape[1] == len(classes))
            if not fits:
                raise FileError(f"{path} holds no latent vectors")
            tensors = file.tensors()
        check_finite(tensors, path)
        return cls(tensors["z"], tensors.get("labels"), classes)
