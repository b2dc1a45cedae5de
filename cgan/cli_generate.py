"""``cgan generate``."""

from __future__ import annotations

from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cgan.errors import ConfigError
from cgan.shell import (
    DataDirOption,
    DataOption,
    DeviceOption,
    ModelArgument,
    file_name,
    file_names,
    messages,
)

if TYPE_CHECKING:
    from cgan.asking import Described, Request
    from cgan.sampling import Sampler
    from cgan.verify import Verifier

LEAST_SIDE = 56
"""Without --scale, pictures in a grid are enlarged to at least this side in pixels."""


def generate(
    model: ModelArgument = None,
    digit: Annotated[
        list[int] | None, typer.Option(help="--class for classes that are digits.")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="A class by name; may be repeated; without it, every class."),
    ] = None,
    n: Annotated[int | None, typer.Option("-n", help="Pictures a class [16].")] = None,
    seed: Annotated[int, typer.Option(help="Of the first picture; the next has the next.")] = 0,
    out: Annotated[
        str | None,
        typer.Option(help="A .png for one grid, or a folder for one PNG a picture."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            help="A data set of so many pictures, the classes balanced, into the folder --out; the "
            "same command again goes on."
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="With --count: webdataset, folder or npz [webdataset]."),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Enlarge so many times [grid: to 56 pixels or more]."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Redraw what the judge takes for another class.")
    ] = False,
    data: DataOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Draw pictures of the classes you name; prints where they are."""
    _check_options(n, out, count, format, scale)
    sampler = _open(model, device, torch_needed=verify or count is not None)
    labels = [*map(str, digit or []), *(classes or [])] or None
    if digit and not sampler.has_digits:
        raise ConfigError(
            f"the classes of {sampler.name} are not digits: choose with --class from "
            f"{', '.join(sampler.classes)}"
        )
    if count is not None and out is not None:
        verifier = _verifier(sampler, data, data_dir) if verify else None
        _write_dataset(sampler, labels, count, format or "webdataset", seed, Path(out), verifier)
        return
    n = 16 if n is None else n
    request = sampler.request(labels, n, seed)
    target = Path(out) if out else _default_out(sampler, labels, n, seed)
    if target.suffix and target.suffix != ".png" and not target.is_dir():
        raise ConfigError(f"--out takes a .png or a folder, not {out}")
    verifier = _verifier(sampler, data, data_dir) if verify else None
    _draw(sampler, request, n, target, scale, verifier)
    _say_how_sure(sampler, verifier)
    typer.echo(str(target))


def _check_options(
    n: int | None, out: str | None, count: int | None, format: str | None, scale: int | None
) -> None:
    """What goes with --count and what does not."""
    if count is None:
        if format is not None:
            raise ConfigError("--format is of a data set: say with --count how many pictures")
        return
    if n is not None:
        raise ConfigError("-n counts pictures a class, --count pictures in all: give one")
    if scale is not None:
        raise ConfigError("pictures of a data set keep their size: leave out --scale or --count")
    if out is None:
        raise ConfigError("--count needs --out, the folder of the data set")
    if Path(out).suffix in {".png", ".tar", ".npz"}:
        raise ConfigError(f"with --count, --out takes a folder, not {out}")


def _draw(
    sampler: Any, request: Request, n: int, target: Path, scale: int | None, verifier: Any
) -> None:
    """One grid, or a folder of pictures."""
    import numpy as np

    from cgan.png import make_grid, save_png, to_array, to_pixels

    batches = sampler.batches(request, verifier) if verifier else sampler.batches(request)
    drawn = (to_array(to_pixels(pictures)) for pictures, _ in batches)
    if target.suffix == ".png":
        pixels = np.concatenate(list(drawn))
        several = len(pixels) > n
        enlarge = scale or ceil(LEAST_SIDE / max(sampler.image_shape[1:]))
        save_png(make_grid(pixels, n if several else ceil(sqrt(n)), enlarge), target)
        return
    index, folders = 0, file_names(sampler.classes)
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
    verifier: Verifier | None,
) -> None:
    """A data set, or this process's share of it; the first process speaks for all."""
    from cgan.bulk import write_dataset
    from cgan.distributed import place

    written = write_dataset(
        sampler, out, count, labels=labels, format=format, seed=seed, verify=verifier, progress=True
    )
    if written.stopped_by is not None:
        messages.print(
            f"stopped with {written.drawn + written.kept:,} pictures in {out}: the same command "
            "goes on"
        )
        raise typer.Exit(128 + written.stopped_by)
    rank, world = place()
    if rank == 0:
        of = f" of {len(sampler.classes)} classes" if sampler.conditional else ""
        if labels is not None:
            of = f" of {', '.join(dict.fromkeys(labels))}"
        share = f" (this process's share of {count:,})" if world > 1 else ""
        kept = f", {written.kept:,} of them from before" if written.kept else ""
        messages.print(f"{written.drawn + written.kept:,} pictures{of}{share}{kept}")
        _say_how_sure(sampler, verifier)
        typer.echo(str(out))


def _say_how_sure(sampler: Described, verifier: Verifier | None) -> None:
    """Who drew, how well it obeys, and what the judge said."""
    measured = sampler.header["measured"]
    proof = ""
    if sampler.conditional and measured:
        share = f"{100 * measured['control_accuracy']:.2f} %"
        proof = f", which draws what it is asked for {share} of the time"
    messages.print(f"drawn by {sampler.name}{proof}")
    if verifier is not None:
        messages.print(
            f"verified: the judge took {verifier.accepted:,} of {verifier.drawn:,} draws for the "
            f"class asked for ({100 * verifier.acceptance:.2f} %); the others were drawn again"
        )


def _open(model: str | None, device: str, torch_needed: bool) -> Any:
    """The generator that is meant, by its export where that will do."""
    from cgan.onnx_sampler import open_export
    from cgan.places import find_generator, newest_model

    path = find_generator(model if model is not None else newest_model())
    if device == "cpu" and not torch_needed and (exported := open_export(path)) is not None:
        return exported
    from cgan.device import find_device
    from cgan.distributed import local_rank
    from cgan.sampling import load

    return load(path).to(find_device(device, local_rank()))


def _verifier(sampler: Sampler, data: str | None, data_dir: str | None) -> Verifier:
    """With the judge that lies beside the generator, or else one of its data."""
    from cgan.data import load_split
    from cgan.evaluation import data_of
    from cgan.metrics.classifier import Judge, find_judge
    from cgan.places import JUDGE_FILE
    from cgan.verify import Verifier

    beside = sampler.path.with_name(JUDGE_FILE)
    if beside.exists() and data is None:
        return Verifier(Judge.load(beside).to(sampler.device))
    described = data_of(sampler, data, data_dir)
    return Verifier(find_judge(lambda split: load_split(described, split), sampler.device))


def _default_out(sampler: Described, labels: list[str] | None, n: int, seed: int) -> Path:
    """A name that says what is drawn, in the run's folder or, for a file alone, in this one."""
    from cgan.places import CONFIG_FILE

    what = "-".join(map(file_name, labels)) if labels else "all"
    run = sampler.path.parent
    folder = run if (run / CONFIG_FILE).exists() else Path()
    return folder / "generated" / f"{what[:80]}-n{n}-seed{seed}.png"
