"""``cgan generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cgan.cli.options import (
    DataDirOption,
    DataOption,
    DeviceOption,
    ModelArgument,
    results,
)
from cgan.cli.write_images import (
    default_out,
    find_rejection,
    print_control,
    write_dataset,
    write_images,
    write_latents,
)
from cgan.errors import ConfigError

DigitOption = Annotated[
    list[int] | None, typer.Option(help="Like --class, for classes that are digits.")
]
ClassOption = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        help="A class by name, or a value of an attribute; may be repeated.",
        show_default="every class",
    ),
]
PerClassOption = Annotated[
    int | None, typer.Option("-n", help="Images per class.", show_default="16")
]
SeedOption = Annotated[
    int | None, typer.Option(help="Seed of the first image of each class.", show_default="0")
]
OutOption = Annotated[
    str | None,
    typer.Option(help="A .png for one grid, or a folder for one PNG per image."),
]
CountOption = Annotated[
    int | None,
    typer.Option(
        help="Write a data set of this many images, balanced over the classes, into the folder "
        "--out. Run the same command again to continue it."
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option(help="With --count: webdataset, folder or npz.", show_default="webdataset"),
]
ScaleOption = Annotated[
    int | None,
    typer.Option(
        min=1, max=64, help="Enlarge by this factor.", show_default="grids: at least 56 pixels"
    ),
]
MAX_IMAGES = 100_000
"""Images per class in one grid or folder; a data set is written in parts."""

VerifyOption = Annotated[
    bool,
    typer.Option("--verify", help="Redraw images that the judge rejects."),
]


MixOption = Annotated[
    str | None,
    typer.Option(help="A mix of classes, like 3=0.5,8=0.5.", metavar="CLASS=WEIGHT,…"),
]
TruncationOption = Annotated[
    float, typer.Option(help="Factor of z, 0 to 1: less variety, more control.")
]
LatentOption = Annotated[
    str | None,
    typer.Option(
        help="Draw the latent vectors in a file of cgan invert; with --class, in these classes.",
        metavar="FILE",
    ),
]


def generate(
    model: ModelArgument = None,
    digit: DigitOption = None,
    classes: ClassOption = None,
    mix: MixOption = None,
    n: PerClassOption = None,
    seed: SeedOption = None,
    truncation: TruncationOption = 1.0,
    latent: LatentOption = None,
    out: OutOption = None,
    count: CountOption = None,
    format: FormatOption = None,
    scale: ScaleOption = None,
    verify: VerifyOption = False,
    data: DataOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Generate images of the given classes and print the output path."""
    _check_options(n, out, count, format, scale)
    if not verify and (data is not None or data_dir is not None):
        raise ConfigError("--data and --data-dir are for the judge of --verify: give --verify too")
    given = {"--mix": mix is not None, "--truncation": truncation != 1, "--latent": latent}
    used = [name for name, value in given.items() if value]
    _check_latent_options(used, count, verify, n is not None or seed is not None)
    weights = None if mix is None else _parse_mix(mix)
    needs_torch = verify or count is not None or mix is not None or latent is not None
    sampler = _open(model, device, needs_torch)
    labels = [*map(str, digit or []), *(classes or [])] or None
    if digit and not sampler.has_digits:
        raise ConfigError(
            f"the classes of {sampler.name} are not digits: choose with --class from "
            f"{', '.join(sampler.classes)}"
        )
    seed, n = seed or 0, 16 if n is None else n
    if verify:
        from cgan.sampling.rejection import check_verifiable

        check_verifiable(sampler.request(labels, 1, seed, weights))  # before a judge is trained
    if count is not None and out is not None:
        rejection = find_rejection(sampler, data, data_dir) if verify else None
        write_dataset(sampler, labels, count, format or "webdataset", seed, Path(out), rejection)
        return
    if n > MAX_IMAGES:
        raise ConfigError(f"-n is at most {MAX_IMAGES:,}, not {n:,}: write more with --count")
    request = sampler.request(labels, n, seed, weights, truncation)
    target = Path(out) if out else default_out(sampler, labels, request, n, mix, verify)
    if target.suffix and target.suffix != ".png" and not target.is_dir():
        raise ConfigError(f"--out must be a .png file or a folder, not {out}")
    if latent is not None:
        target = write_latents(sampler, Path(latent), labels, out, scale)
    else:
        rejection = find_rejection(sampler, data, data_dir) if verify else None
        write_images(sampler, request, n, target, scale, rejection)
        print_control(sampler, rejection, mix is None and truncation == 1)
    results.print(str(target))


def _parse_mix(text: str) -> dict[str, float]:
    """``3=0.5,8=0.5`` to classes and weights; a class name may contain ``=``."""
    mix: dict[str, float] = {}
    for part in text.split(","):
        name, equals, weight = part.rpartition("=")
        try:
            value = float(weight)
        except ValueError:
            equals = ""
        if not equals or name.strip() in mix:
            raise ConfigError(f"--mix takes classes and weights, like 3=0.5,8=0.5, not {text!r}")
        mix[name.strip()] = value
    return mix


def _check_latent_options(
    used: list[str], count: int | None, verify: bool, has_n_or_seed: bool
) -> None:
    """Reject options that do not fit --mix, --truncation or --latent."""
    if used and count is not None:
        raise ConfigError(f"{used[0]} does not apply to a data set: leave out {used[0]} or --count")
    if "--latent" in used and (verify or has_n_or_seed or len(used) > 1):
        raise ConfigError(
            "--latent draws the vectors of its file as they are: leave out -n, --seed, --verify, "
            "--mix and --truncation"
        )


def _check_options(
    n: int | None, out: str | None, count: int | None, format: str | None, scale: int | None
) -> None:
    """Reject options that do not fit together."""
    if count is None:
        if format is not None:
            raise ConfigError("--format needs --count, the number of images in the data set")
        return
    if n is not None:
        raise ConfigError("-n is images per class and --count images in total: give only one")
    if scale is not None:
        raise ConfigError("--scale does not apply to a data set: leave out --scale or --count")
    if out is None:
        raise ConfigError("--count needs --out, the folder of the data set")
    if Path(out).suffix in {".png", ".tar", ".npz"}:
        raise ConfigError(f"with --count, --out must be a folder, not {out}")


def _open(model: str | None, device: str, needs_torch: bool) -> Any:
    """Load the requested generator, or its ONNX export if torch is not needed."""
    from cgan.sampling.onnx import open_export
    from cgan.storage.paths import find_generator, newest_model

    path = find_generator(model if model is not None else newest_model())
    if device == "cpu" and not needs_torch and (exported := open_export(path)) is not None:
        return exported
    from cgan.runtime.device import find_device
    from cgan.runtime.rank import local_rank
    from cgan.sampling.sampler import load

    return load(path).to(find_device(device, local_rank()))
