"""``cgan invert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cgan.cli.generate import ScaleOption
from cgan.cli.options import DataDirOption, DataOption, DeviceOption, messages, results
from cgan.errors import ConfigError

GeneratorArgument = Annotated[
    str, typer.Argument(help="A run folder, a generator file, or mnist.", show_default=False)
]
PictureArgument = Annotated[
    str, typer.Argument(help="An image of the generator's size.", show_default=False)
]
OutOption = Annotated[
    str | None,
    typer.Option(
        help="A .png file; the latent vector is written beside it, as .safetensors.",
        show_default="generated/PICTURE-inverted.png",
    ),
]


def invert(
    model: GeneratorArgument,
    picture: PictureArgument,
    data: DataOption = None,
    data_dir: DataDirOption = None,
    scale: ScaleOption = None,
    out: OutOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Find the class and the latent vector of an image, and draw its style in every class."""
    import torch

    from cgan.cli.generate import enlargement, output_folder
    from cgan.cli.tables import print_rows
    from cgan.evaluation.invert import invert as find
    from cgan.evaluation.invert import read_picture
    from cgan.runtime.device import find_device
    from cgan.sampling.sampler import load
    from cgan.storage.checkpoint import Latents
    from cgan.storage.images import make_grid, save_png, to_pixels

    sampler = load(model, find_device(device))
    target = Path(out or output_folder(sampler) / f"{Path(picture).stem}-inverted.png")
    if target.suffix != ".png":
        raise ConfigError(f"--out must be a .png file, not {out}")
    if target.resolve() == Path(picture).resolve():
        raise ConfigError(f"--out is the image itself: choose another name than {target}")
    latents = target.with_suffix(".safetensors")
    if latents.exists():
        Latents.load(latents)  # raises if it is something else, which must not be overwritten
    found = find(sampler, picture, data=data, data_dir=data_dir, progress=True)

    original = read_picture(picture, sampler.image_shape)[None]
    z, labels = found.z[None], None
    rows = {"distance": f"{found.distance:.3f}"}
    if others := found.held_out_distances:
        share = sum(one <= found.distance for one in others) / len(others)
        rows["distance"] += f", larger than that of {share:.0%} of {len(others)} real test images"
    grid = [original, sampler.generate(z, labels)] if not sampler.conditional else [original]
    if found.label is not None:
        classes = torch.eye(len(sampler.classes))
        labels = classes[sampler.class_indices(found.label)]
        rows = {"class": found.label, **rows}
        grid += [sampler.generate(z, labels), sampler.generate(z.repeat(len(classes), 1), classes)]
    pixels = to_pixels(torch.cat(grid))
    save_png(make_grid(pixels, len(pixels), enlargement(sampler, scale)), target)
    Latents(z, labels, sampler.classes).save(latents)
    print_rows({**rows, "latent vector": str(latents)})
    if found.is_outside:
        messages.print(
            "this image is outside of what the generator knows: 99 % of real test images are "
            "closer to their reconstruction",
            style="yellow",
        )
    results.print(str(target))
