"""The shell: parse, call the library, print. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cgan import cli_generate, cli_measure
from cgan.errors import CganError, ConfigError
from cgan.shell import (
    DataDirOption,
    JsonOption,
    ModelArgument,
    load_model,
    messages,
)

# torch, pydantic and all that imports them wait inside the commands: `cgan --help` answers at once.
if TYPE_CHECKING:
    from cgan.config import Config


class Group(TyperGroup):
    """Commands whose errors are one sentence and exit status 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        logger = logging.getLogger("cgan")
        rank = os.environ.get("RANK", "0")  # of several processes that torchrun started
        logger.setLevel(logging.INFO if rank == "0" else logging.ERROR)
        logger.propagate = False
        logger.handlers = [_Messages()]
        try:
            return super().invoke(ctx)
        except CganError as error:
            who = "cgan" if rank == "0" else f"cgan (process {rank})"
            messages.print(f"{who}: {error}", style="red")
            raise typer.Exit(2) from error


class _Messages(logging.Handler):
    """What the library says aloud, on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            messages.print(f"warning: {record.getMessage()}", style="yellow")
        else:
            messages.print(record.getMessage())


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="GANs that draw the class you ask for, and measure that they do.",
    epilog="Start with:  cgan train --conditional   and then   cgan generate --digit 7",
)


@app.command(
    epilog="Examples:  cgan train --conditional  |  cgan train --plain mnist-dcgan --minutes 5  |  "
    "cgan train --data ./my-pictures  |  cgan train --resume"
)
def train(
    config: Annotated[
        str | None,
        typer.Argument(
            help="digits-mlp, mnist-mlp, mnist-dcgan, mnist (the packaged one), fashion-dcgan, "
            "folder-dcgan, or a YAML file; "
            "without it, what suits --data, or digits-mlp."
        ),
    ] = None,
    conditional: Annotated[
        bool | None,
        typer.Option("--conditional/--plain", help="Told the class, or the plain baseline."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="digits, mnist, fashion-mnist, kmnist, cifar10, or a folder of folders."),
    ] = None,
    data_dir: DataDirOption = None,
    size: Annotated[int | None, typer.Option(help="Side of a folder's pictures in pixels.")] = None,
    skip_broken: Annotated[
        bool | None,
        typer.Option("--skip-broken", help="Leave out pictures that can't be read."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="mlp or dcgan.")] = None,
    loss: Annotated[
        str | None, typer.Option(help="nonsaturating, least_squares, hinge or relativistic.")
    ] = None,
    update: Annotated[str | None, typer.Option(help="alternating or shared.")] = None,
    images: Annotated[
        str | None, typer.Option(help="Budget in images, like 600k or 2M.", metavar="COUNT")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Or budget in minutes.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate at the start.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and latents.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:1.")] = None,
    out: Annotated[str | None, typer.Option(help="The run's folder [runs/CONFIG].")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped.")
    ] = False,
    wandb: Annotated[
        bool | None, typer.Option("--wandb/--no-wandb", help="Log to Weights & Biases.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Anything else in the config.", metavar="KEY=VALUE"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
) -> None:
    """Train a GAN, conditional or plain."""
    from cgan.config import parse_assignment
    from cgan.evaluation import source_of

    asked = {
        "model.conditional": conditional,
        "data.source": None if data is None else source_of(data),
        "data.data_dir": None if data_dir is None else str(Path(data_dir).resolve()),
        "data.size": size,
        "data.skip_broken": skip_broken,
        "model.backbone": model,
        "loss": loss,
        "update": update,
        "images": images,
        "minutes": minutes,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "device": device,
        "wandb": wandb,
    }
    overrides: dict[str, object] = {k: value for k, value in asked.items() if value is not None}
    if images is not None and minutes is not None:
        raise ConfigError("give the budget in --images or in --minutes, one of the two")
    overrides |= dict(parse_assignment(text) for text in assignments or [])
    resolved, folder = _resolve(config, data, overrides, resume, out)
    from cgan import tables

    if dry_run:
        tables.print_plan(resolved, folder or out)
        return

    from cgan.trainer import train as train_run

    run = train_run(resolved, folder or out, resume=resume, progress=True)
    if not run.written_here:
        raise typer.Exit(128 + run.stopped_by if run.stopped_by else 0)
    if run.stopped_by is not None:
        messages.print(
            f"stopped after {run.images_seen:,} images; go on with: "
            f"cgan train --resume --out {run.folder}"
        )
        raise typer.Exit(128 + run.stopped_by)
    tables.print_run(run, load_model(str(run.folder)))


app.command(
    epilog="Examples:  cgan generate --digit 7  |  "
    "cgan generate runs/pets --class cat --class dog -n 8 --seed 3 --out pets.png  |  "
    "cgan generate --out drawn/"
)(cli_generate.generate)
app.command(epilog="Examples:  cgan evaluate  |  cgan evaluate runs/pets --html report.html --cas")(
    cli_measure.evaluate
)
app.command(epilog="Examples:  cgan compare runs/conditional runs/plain --html compare.html")(
    cli_measure.compare
)


@app.command(epilog="Examples:  cgan info mnist  |  cgan info runs/mnist-dcgan --json")
def info(model: ModelArgument = None, as_json: JsonOption = False) -> None:
    """Say what a generator file is: its config, classes, what was measured of it, its size."""
    from cgan import tables
    from cgan.models import count_parameters

    sampler = load_model(model)
    if as_json:
        parameters = count_parameters(sampler.generator)
        header = {"file": str(sampler.path), "parameters": parameters, **sampler.header}
        typer.echo(json.dumps(header, ensure_ascii=False))
    else:
        tables.print_file(sampler)


@app.command(epilog="Examples:  cgan export  |  cgan export runs/pets --onnx --out pets.onnx")
def export(
    model: ModelArgument = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="As ONNX, the only format.")] = True,
    out: Annotated[
        str | None,
        typer.Option(help="An .onnx file [beside the generator, where cgan generate finds it]."),
    ] = None,
) -> None:
    """Write a generator as ONNX: cgan generate then draws without waiting for torch."""
    from cgan.export import export as write_export
    from cgan.places import newest_model

    chosen = model if model is not None else newest_model()
    typer.echo(str(write_export(chosen, None if out is None else Path(out))))


def main() -> None:
    """The console command."""
    app(prog_name="cgan")


def _resolve(
    config: str | None, data: str | None, overrides: dict[str, Any], resume: bool, out: str | None
) -> tuple[Config, Path | None]:
    """The config that the words on the command line mean, and the run to go on with."""
    from cgan.config import default_config_name, load_config

    if resume and config is None:
        from cgan.places import CONFIG_FILE
        from cgan.runs import newest_state

        folder = Path(out) if out else newest_state()
        return load_config(folder / CONFIG_FILE, overrides), folder
    name = config or default_config_name(data, overrides.get("model.backbone"))
    if config is None:
        messages.print(f"config {name}")
    return load_config(name, overrides), None
