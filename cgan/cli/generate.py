"""``cgan generate``."""

from __future__ import annotations

import os
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cgan.attributes import sort_for_display
from cgan.cli.options import (
    DataDirOption,
    DataOption,
    DeviceOption,
    ModelArgument,
    messages,
    results,
)
from cgan.errors import ConfigError, RunError, first_few

if TYPE_CHECKING:
    from cgan.evaluation.judge import Judge
    from cgan.sampling.request import GeneratorInfo, Request
    from cgan.sampling.sampler import RejectionSampler, Sampler


MIN_SIDE = 56
"""Without --scale, images in a grid are enlarged to at least this side in pixels."""
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
    int | None,
    typer.Option(help="Seed of the first image, without --count of each class.", show_default="0"),
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


def write_images(
    sampler: Any, request: Request, n: int, target: Path, scale: int | None, rejection: Any
) -> None:
    """Write one grid, or a folder of images."""
    import numpy as np

    from cgan.storage.images import make_grid, save_png, to_array, to_pixels
    from cgan.storage.paths import safe_file_names

    batches = sampler.batches(request, rejection) if rejection else sampler.batches(request)
    drawn = (to_array(to_pixels(images)) for images, _ in batches)
    if target.suffix == ".png":
        try:
            pixels = np.concatenate(list(drawn))
            columns = n if len(pixels) > n else ceil(sqrt(n))
            grid = make_grid(pixels, columns, enlargement(sampler, scale))
        except MemoryError as error:
            raise RunError(
                "the grid does not fit in memory: lower -n or --scale, or give a folder as --out"
            ) from error
        save_png(grid, target)
        return
    index, folders = 0, safe_file_names(sampler.classes)
    for pixels in drawn:
        for picture in pixels:
            name = f"seed-{request.seeds[index]:06d}.png"
            if request.labels is not None:
                name = f"{folders[request.labels[index]]}/{name}"
            save_png(make_grid(picture[None], 1, scale or 1), target / name)
            index += 1


def write_dataset(
    sampler: Sampler,
    labels: list[str] | None,
    count: int,
    format: str,
    seed: int,
    out: Path,
    rejection: RejectionSampler | None,
) -> None:
    """Write a data set, or this process's part of it; rank 0 prints the summary."""
    from cgan.runtime.process import rank_and_world_size
    from cgan.sampling.write_dataset import write_dataset as write

    written = write(
        sampler, out, count, labels=labels, format=format, seed=seed, verify=rejection,
        progress=True,
    )  # fmt: skip
    if written.stopped_by is not None:
        messages.print(
            f"stopped with {written.drawn + written.kept:,} images in {out}: run the same "
            "command again to continue"
        )
        raise typer.Exit(128 + written.stopped_by)
    rank, world_size = rank_and_world_size()
    if rank == 0:
        of = f" of {len(sampler.classes)} classes" if sampler.conditional else ""
        if labels is not None:
            of = f" of {', '.join(dict.fromkeys(labels))}"
        part = f" (this process's part of {count:,})" if world_size > 1 else ""
        kept = f", {written.kept:,} of them from an earlier run" if written.kept else ""
        messages.print(f"{written.drawn + written.kept:,} images{of}{part}{kept}")
        print_control(sampler, rejection)
        results.print(str(out))


def print_control(
    sampler: GeneratorInfo, rejection: RejectionSampler | None, applies: bool = True
) -> None:
    """Print the generator, its measured control accuracy, and the judge's acceptance rate.

    Args:
        sampler: the generator.
        rejection: the judge's verdicts, if it verified the images.
        applies: whether the measured control accuracy is that of such images: it is not for mixes
            and truncated z.
    """
    measured = sampler.header["measured"]
    control = ""
    if sampler.conditional and measured and applies:
        share = f"{100 * measured['control_accuracy']:.2f} %"
        control = f" (control accuracy {share})"
    messages.print(f"generated by {sampler.name}{control}")
    if rejection is not None:
        rest = "; the others were drawn again" if rejection.accepted < rejection.drawn else ""
        judge = cast("Judge", rejection.judge)
        messages.print(
            f"verified: {judge.name} accepted {rejection.accepted:,} of {rejection.drawn:,} draws "
            f"({100 * rejection.acceptance:.2f} %){rest}"
        )
        if measured and measured.get("judge") != judge.weights_digest:
            messages.print("note: another judge measured the control accuracy")


def find_rejection(sampler: Sampler, data: str | None, data_dir: str | None) -> RejectionSampler:
    """A rejection sampler with the judge that verifies the generator's images."""
    from cgan.evaluation.api import find_judge_of
    from cgan.sampling.sampler import RejectionSampler

    return RejectionSampler(find_judge_of(sampler, data, data_dir))


def default_out(
    sampler: GeneratorInfo,
    labels: list[str] | None,
    request: Request,
    n: int,
    mix: str | None = None,
    verified: bool = False,
) -> Path:
    """A descriptive file name in the folder of what the generator draws."""
    from cgan.storage.paths import safe_file_name, safe_file_names

    names = safe_file_names(sampler.classes)
    what = "-".join(names[index] for index in sampler.class_indices(labels)) if labels else "all"
    what = what if mix is None else mix.replace(",", "-")
    truncated = f"-truncation{request.truncation:g}" if request.truncation != 1 else ""
    name = f"{safe_file_name(what)}-n{n}-seed{request.seeds[0]}{truncated}"
    return output_folder(sampler) / f"{name}{'-verified' if verified else ''}.png"


def output_folder(sampler: GeneratorInfo) -> Path:
    """``generated/`` in the run folder; in the current folder, with the generator's name."""
    from cgan.storage.paths import CONFIG_FILE, safe_file_name

    run = sampler.path.parent
    if (run / CONFIG_FILE).exists():
        return run / "generated"
    return Path("generated", safe_file_name(sampler.title))


def write_latents(
    sampler: Sampler, file: Path, labels: list[str] | None, out: str | None, scale: int | None
) -> Path:
    """Write one grid of the latent vectors in a file: as they are, or one row per class.

    Raises:
        FileError: the file holds no latent vectors.
        ConfigError: z has another length, or there are other classes, than those of the generator.
    """
    import torch

    from cgan.storage.checkpoint import Latents
    from cgan.storage.images import make_grid, save_png, to_pixels
    from cgan.storage.paths import safe_file_name, safe_file_names

    if out is None:
        what = "" if labels is None else "-as-" + "-".join(safe_file_names(labels))
        target = output_folder(sampler) / f"{safe_file_name(file.stem)}{what}-latent.png"
    else:
        target = Path(out)
    if target.suffix != ".png":
        raise ConfigError(f"with --latent, --out must be a .png file, not {out}")
    found = Latents.load(file)
    columns, z, weights = len(found.z), found.z, found.labels
    if z.shape[1] != sampler.latent_dim or found.classes != sampler.classes:
        raise ConfigError(
            f"{file} holds latent vectors of another length, or for other classes, than those of "
            f"{sampler.name}"
        )
    if labels is not None:
        chosen = torch.tensor(sampler.grid_rows(labels))
        z, weights = z.repeat(len(chosen), 1), chosen.repeat_interleave(columns)
    if sampler.conditional == (weights is None):
        raise ConfigError(f"{file} has no classes that fit {sampler.name}: choose with --class")
    pixels = to_pixels(sampler.generate(z, weights))
    save_png(make_grid(pixels, columns, enlargement(sampler, scale)), target)
    return target


def enlargement(sampler: GeneratorInfo, scale: int | None) -> int:
    """The factor of images in a grid."""
    return scale or ceil(MIN_SIDE / max(sampler.image_shape[1:]))


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
            f"{first_few(sort_for_display(sampler.classes), 20)}"
        )
    seed, n = seed or 0, 16 if n is None else n
    if verify:
        from cgan.sampling.sampler import check_verifiable

        check_verifiable(sampler.request(labels, 1, seed, weights))  # before a judge is trained
    if count is not None and out is not None:
        rejection = find_rejection(sampler, data, data_dir) if verify else None
        write_dataset(sampler, labels, count, format or "webdataset", seed, Path(out), rejection)
        return
    if n > MAX_IMAGES:
        raise ConfigError(f"-n is at most {MAX_IMAGES:,}, not {n:,}: write more with --count")
    import numpy as np

    rows = labels if weights or not sampler.conditional else np.array(sampler.grid_rows(labels))
    request = sampler.request(rows, n, seed, weights, truncation)
    target = Path(out) if out else default_out(sampler, labels, request, n, mix, verify)
    if target.suffix and target.suffix != ".png" and not os.path.isdir(target):
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
    from cgan.runtime.process import local_rank
    from cgan.sampling.sampler import load

    return load(path).to(find_device(device, local_rank()))
