"""``cgan walk``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cgan.cli.generate import ScaleOption
from cgan.cli.options import DeviceOption, ModelArgument, results
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
OutOption = Annotated[
    str | None,
    typer.Option(
        help="A .gif, .webp or .mp4 file, a .png strip, or a folder.",
        show_default="walk.gif in generated/",
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
    out: OutOption = None,
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
