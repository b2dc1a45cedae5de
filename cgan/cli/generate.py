"""``cgan generate``."""

from __future__ import annotations

from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cgan.cli.options import (
    DataDirOption,
    DataOption,
    DeviceOption,
    ModelArgument,
    messages,
    results,
)
from cgan.errors import ConfigError

if TYPE_CHECKING:
    from cgan.evaluation.judge import Judge
    from cgan.sampling.class_names import GeneratorInfo, Request
    from cgan.sampling.rejection import RejectionSampler
    from cgan.sampling.sampler import Sampler

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
SeedOption = Annotated[int, typer.Option(help="Seed of the first image of each class.")]
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
VerifyOption = Annotated[
    bool,
    typer.Option("--verify", help="Redraw images that the judge rejects."),
]


def generate(
    model: ModelArgument = None,
    digit: DigitOption = None,
    classes: ClassOption = None,
    n: PerClassOption = None,
    seed: SeedOption = 0,
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
    sampler = _open(model, device, needs_torch=verify or count is not None)
    labels = [*map(str, digit or []), *(classes or [])] or None
    if digit and not sampler.has_digits:
        raise ConfigError(
            f"the classes of {sampler.name} are not digits: choose with --class from "
            f"{', '.join(sampler.classes)}"
        )
    if count is not None and out is not None:
        rejection = _rejection(sampler, data, data_dir) if verify else None
        _write_dataset(sampler, labels, count, format or "webdataset", seed, Path(out), rejection)
        return
    n = 16 if n is None else n
    request = sampler.request(labels, n, seed)
    target = Path(out) if out else _default_out(sampler, labels, n, seed)
    if target.suffix and target.suffix != ".png" and not target.is_dir():
        raise ConfigError(f"--out must be a .png file or a folder, not {out}")
    rejection = _rejection(sampler, data, data_dir) if verify else None
    _draw(sampler, request, n, target, scale, rejection)
    _print_control(sampler, rejection)
    results.print(str(target))


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


def _draw(
    sampler: Any, request: Request, n: int, target: Path, scale: int | None, rejection: Any
) -> None:
    """Write one grid, or a folder of images."""
    import numpy as np

    from cgan.storage.images import make_grid, save_png, to_array, to_pixels
    from cgan.storage.paths import safe_file_names

    batches = sampler.batches(request, rejection) if rejection else sampler.batches(request)
    drawn = (to_array(to_pixels(images)) for images, _ in batches)
    if target.suffix == ".png":
        pixels = np.concatenate(list(drawn))
        several = len(pixels) > n
        enlarge = scale or ceil(MIN_SIDE / max(sampler.image_shape[1:]))
        save_png(make_grid(pixels, n if several else ceil(sqrt(n)), enlarge), target)
        return
    index, folders = 0, safe_file_names(sampler.classes)
    for pixels in drawn:
        for picture in pixels:
            name = f"seed-{request.seeds[index]:06d}.png"
            if request.labels is not None:
                name = f"{folders[request.labels[index]]}/{name}"
            save_png(make_grid(picture[None], 1, scale or 1), target / name)
            index += 1


def _write_dataset(
    sampler: Sampler,
    labels: list[str] | None,
    count: int,
    format: str,
    seed: int,
    out: Path,
    rejection: RejectionSampler | None,
) -> None:
    """Write a data set, or this process's part of it; rank 0 prints the summary."""
    from cgan.runtime.rank import rank_and_world_size
    from cgan.sampling.dataset import write_dataset

    written = write_dataset(
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
        _print_control(sampler, rejection)
        results.print(str(out))


def _print_control(sampler: GeneratorInfo, rejection: RejectionSampler | None) -> None:
    """Print the generator, its measured control accuracy, and the judge's acceptance rate."""
    measured = sampler.header["measured"]
    control = ""
    if sampler.conditional and measured:
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


def _rejection(sampler: Sampler, data: str | None, data_dir: str | None) -> RejectionSampler:
    from cgan.evaluation.api import find_judge_of
    from cgan.sampling.rejection import RejectionSampler

    return RejectionSampler(find_judge_of(sampler, data, data_dir))


def _default_out(sampler: GeneratorInfo, labels: list[str] | None, n: int, seed: int) -> Path:
    """A descriptive file name in ``generated/``, in the run folder or the current folder."""
    from cgan.storage.paths import CONFIG_FILE, safe_file_name, safe_file_names

    names = safe_file_names(sampler.classes)
    what = "-".join(names[index] for index in sampler.class_indices(labels)) if labels else "all"
    run = sampler.path.parent
    folder = run if (run / CONFIG_FILE).exists() else Path()
    return folder / "generated" / f"{safe_file_name(what)}-n{n}-seed{seed}.png"
