"""``cgan walk`` and ``cgan invert``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cgan.cli.generate import ScaleOption
from cgan.cli.options import (
    DataDirOption,
    DataOption,
    DeviceOption,
    ModelArgument,
    messages,
    results,
)
from cgan.errors import ConfigError

FromOption = Annotated[
    str | None, typer.Option("--from", help="Class of the first image.", metavar="CLASS")
]
ToOption = Annotated[
    str | None,
    typer.Option("--to", help="Class of the last image.", metavar="CLASS", show_default="--from"),
]
FramesOption = Annotated[int, typer.Option(help="Number of images.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the first image.")]
EndSeedOption = Annotated[
    int | None, typer.Option(help="Seed of the last image.", show_default="--seed")
]
StyleOption = Annotated[
    bool, typer.Option("--style", help="Keep the class, and walk to the next seed.")
]
AnimationOption = Annotated[
    str | None,
    typer.Option(
        help="A .gif, .webp or .mp4 file, a .png strip, or a folder.",
        show_default="walk.gif in generated/",
    ),
]
GeneratorArgument = Annotated[
    str, typer.Argument(help="A run folder, a generator file, or mnist.", show_default=False)
]
PictureArgument = Annotated[
    str, typer.Argument(help="An image; it is resized as in training.", show_default=False)
]
InvertedOption = Annotated[
    str | None,
    typer.Option(
        help="A .png file; the latent vector is written beside it, as .safetensors.",
        show_default="FOLDER-PICTURE-inverted.png in generated/",
    ),
]


def walk(
    model: ModelArgument = None,
    start: FromOption = None,
    end: ToOption = None,
    style: StyleOption = False,
    frames: FramesOption = 60,
    seed: SeedOption = 0,
    end_seed: EndSeedOption = None,
    scale: ScaleOption = None,
    out: AnimationOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Walk from one class to another, or from one style to another, as an animation."""
    if style and (end is not None or end_seed is not None):
        raise ConfigError("--style keeps the class: give either --style, or --to or --end-seed")
    if style:
        end_seed = seed + 1
    elif end is None and end_seed is None:
        raise ConfigError("a walk needs an end: --to CLASS, --end-seed SEED, or --style")
    from cgan.cli.generate import enlargement, output_folder
    from cgan.runtime.device import find_device
    from cgan.sampling.sampler import load
    from cgan.sampling.walk import walk as draw_walk
    from cgan.storage.images import check_format, save_animation, to_pixels
    from cgan.storage.paths import newest_model, safe_file_name

    if out is not None:
        check_format(Path(out))
    sampler = load(model if model is not None else newest_model(), find_device(device))
    images = draw_walk(sampler, start, end, frames=frames, seed=seed, end_seed=end_seed)
    words = ["walk", *(name for name in (start, end) if name is not None), f"seed{seed}"]
    if end_seed is not None:
        words.append(f"seed{end_seed}")
    name = safe_file_name("-".join(words)) + ".gif"
    target = Path(out) if out is not None else output_folder(sampler) / name
    results.print(str(save_animation(to_pixels(images), target, enlargement(sampler, scale))))


def invert(
    model: GeneratorArgument,
    picture: PictureArgument,
    data: DataOption = None,
    data_dir: DataDirOption = None,
    scale: ScaleOption = None,
    out: InvertedOption = None,
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
    from cgan.storage.paths import safe_file_name

    sampler = load(model, find_device(device))
    path = Path(picture)
    name = safe_file_name("-".join(filter(None, (path.parent.name, path.stem, "inverted"))))
    target = Path(out or output_folder(sampler) / f"{name}.png")
    if target.suffix != ".png":
        raise ConfigError(f"--out must be a .png file, not {out}")
    if target.resolve() == path.resolve():
        raise ConfigError(f"--out is the image itself: choose another name than {target}")
    latents = target.with_suffix(".safetensors")
    if os.path.exists(latents):
        Latents.load(latents)  # raises if it is something else, which must not be overwritten
    found = find(sampler, picture, data=data, data_dir=data_dir, progress=True)

    original = read_picture(picture, sampler)[None]
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
        every = classes[sampler.grid_rows(None)]
        grid += [sampler.generate(z, labels), sampler.generate(z.repeat(len(every), 1), every)]
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
