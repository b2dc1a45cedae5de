"""``cgan train`` and ``cgan steer``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cgan.cli.options import DataDirOption, DeviceOption, load_model, messages
from cgan.errors import ConfigError

if TYPE_CHECKING:
    from cgan.config import Config
    from cgan.training.trainer import Run


ConfigArgument = Annotated[
    str | None,
    typer.Argument(
        help="digits-mlp, mnist-mlp, mnist-dcgan, mnist (packaged generator), fashion-dcgan, "
        "folder-dcgan, photos-resnet (for a GPU), or a YAML file. Default: the config for --data, "
        "or digits-mlp.",
        show_default=False,
    ),
]
ConditionalOption = Annotated[
    bool | None,
    typer.Option("--conditional/--plain", help="Class-conditional, or unconditional (plain)."),
]
TrainDataOption = Annotated[
    str | None,
    typer.Option(
        help="digits, mnist, fashion-mnist, kmnist, emnist-letters, emnist-balanced, cifar10, "
        "cifar100, svhn, a folder, a ZIP or TAR file, or hf-datasets:NAME."
    ),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Warm start: begin with the weights of a run, a generator file or 'mnist'.",
        metavar="RUN",
    ),
]
# Its metavar is not SIZE, because Typer 0.27.0 drops an option with its own name as metavar.
SizeOption = Annotated[
    str | None,
    typer.Option(help="Side of a folder's images in pixels, or WIDTHxHEIGHT.", metavar="PIXELS"),
]
SkipBrokenOption = Annotated[
    bool | None,
    typer.Option("--skip-broken", help="Skip images that cannot be read."),
]
SkipConflictsOption = Annotated[
    bool | None,
    typer.Option("--skip-conflicts", help="Leave out images that are in several classes."),
]
ModelOption = Annotated[str | None, typer.Option(help="mlp, dcgan, photo or resnet.")]
LossOption = Annotated[
    str | None, typer.Option(help="nonsaturating, least_squares, hinge or relativistic.")
]
UpdateOption = Annotated[str | None, typer.Option(help="alternating or simultaneous.")]
ImagesOption = Annotated[
    str | None, typer.Option(help="Budget in images, like 600k or 2M.", metavar="COUNT")
]
MinutesOption = Annotated[float | None, typer.Option(help="Budget in minutes instead.")]
BatchSizeOption = Annotated[int | None, typer.Option(help="Images per step.")]
LrOption = Annotated[float | None, typer.Option(help="Initial learning rate of Adam.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of weights, batches and latents.")]
TrainDeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps or xpu.")]
OutOption = Annotated[str | None, typer.Option(help="The run folder.", show_default="runs/CONFIG")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Resume a stopped run.")]
DataChangedOption = Annotated[
    bool,
    typer.Option(
        "--data-changed",
        help="With --resume: continue although images were added, removed or changed.",
    ),
]
WandbOption = Annotated[
    bool | None, typer.Option("--wandb/--no-wandb", help="Log to Weights & Biases.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set any config key; --dry-run lists them.", metavar="KEY=VALUE"),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the config and exit.")]
GeneratorArgument = Annotated[
    str,
    typer.Argument(
        help="The run folder or generator file of a plain GAN, or an ONNX file.", show_default=False
    ),
]
LabelledDataOption = Annotated[
    str | None,
    typer.Option(
        help="Labelled images: a data set, a folder, a ZIP or TAR file, or hf-datasets:NAME.",
        show_default="the data of the plain GAN",
    ),
]
SteeredOutOption = Annotated[
    str | None, typer.Option(help="The run folder.", show_default="GENERATOR-steered")
]


def train(
    config: ConfigArgument = None,
    conditional: ConditionalOption = None,
    data: TrainDataOption = None,
    data_dir: DataDirOption = None,
    warm_start: FromOption = None,
    size: SizeOption = None,
    skip_broken: SkipBrokenOption = None,
    skip_conflicts: SkipConflictsOption = None,
    model: ModelOption = None,
    loss: LossOption = None,
    update: UpdateOption = None,
    images: ImagesOption = None,
    minutes: MinutesOption = None,
    batch_size: BatchSizeOption = None,
    lr: LrOption = None,
    seed: SeedOption = None,
    device: TrainDeviceOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    data_changed: DataChangedOption = False,
    wandb: WandbOption = None,
    assignments: SetOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Train a GAN, class-conditional or unconditional (plain)."""
    if data_changed and not resume:
        raise ConfigError("--data-changed needs --resume")
    overrides = read_overrides(
        {
            "model.conditional": conditional,
            "data.source": data,
            "data.data_dir": data_dir,
            "warm_start": warm_start,
            "data.size": size,
            "data.skip_broken": skip_broken,
            "data.skip_conflicts": skip_conflicts,
            "model.backbone": model,
            "loss": loss,
            "update": update,
            "images": images,
            "minutes": minutes,
            "batch_size": batch_size,
            "lr": lr, "seed": seed, "device": device, "wandb": wandb,
        },
        assignments or [],
    )  # fmt: skip
    resolved, folder = _resolve(config, data, overrides, resume, out)
    if dry_run:
        from cgan.cli.tables import print_plan

        print_plan(resolved, out, folder)
        return
    from cgan.training.trainer import train as train_run

    report(
        train_run(resolved, folder or out, resume=resume, data_changed=data_changed, progress=True)
    )


def steer(
    generator: GeneratorArgument,
    data: LabelledDataOption = None,
    data_dir: DataDirOption = None,
    images: ImagesOption = None,
    minutes: MinutesOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    out: SteeredOutOption = None,
    assignments: SetOption = None,
) -> None:
    """Add class control to a plain GAN without changing its generator."""
    options = {"images": images, "minutes": minutes, "seed": seed}
    overrides = read_overrides(options, assignments or [])
    from cgan.training.steer import steer as run

    report(
        run(
            generator, data, data_dir=data_dir, out=out, device=device, overrides=overrides,
            progress=True,
        )
    )  # fmt: skip


def read_overrides(options: dict[str, Any], assignments: list[str]) -> dict[str, object]:
    """The options that were given, and ``--set``, as config overrides."""
    from cgan.config_io import parse_assignment
    from cgan.data.load import resolve_source

    given = {key: value for key, value in options.items() if value is not None}
    if "data.source" in given:
        given["data.source"] = resolve_source(given["data.source"])
    if "data.data_dir" in given:
        given["data.data_dir"] = str(Path(given["data.data_dir"]).resolve())
    assigned = dict(parse_assignment(text) for text in assignments)
    if twice := sorted(given.keys() & assigned.keys()):
        raise ConfigError(f"{twice[0]} is given twice: as an option and with --set")
    if {"images", "minutes"} <= given.keys() | assigned.keys():
        raise ConfigError("give the budget either in --images or in --minutes")
    return given | assigned


def _resolve(
    config: str | None, data: str | None, overrides: dict[str, Any], resume: bool, out: str | None
) -> tuple[Config, Path | None]:
    """The config, and the folder of the run to resume (None for a new run)."""
    from cgan.config import RESUMABLE_CHANGES
    from cgan.config_io import default_config_name, flatten, load_config
    from cgan.storage.paths import CONFIG_FILE, RUNS
    from cgan.storage.run_files import newest_run, run_to_resume

    if resume and config is None:
        folder = run_to_resume(Path(out), exactly=True) if out else newest_run()
        return load_config(folder / CONFIG_FILE, overrides), folder
    if config == "steer":
        raise ConfigError("the config steer is that of another command: cgan steer GENERATOR")
    name = config or default_config_name(data, overrides.get("model.backbone"))
    if config is None:
        messages.print(f"config {name}")
        if source := overrides.get("warm_start"):
            from cgan.training.warm_start import model_overrides

            overrides = model_overrides(source, data, overrides.get("data.size")) | overrides
    resolved = load_config(name, overrides)
    if not resume:
        return resolved, None
    folder = run_to_resume(Path(out) if out else RUNS / resolved.name, exactly=bool(out))
    run = flatten(load_config(folder / CONFIG_FILE).model_dump(mode="json"))
    new_budget = {"images", "minutes"} if overrides.keys() & {"images", "minutes"} else set()
    kept = {key: run[key] for key in RESUMABLE_CHANGES - overrides.keys() - new_budget}
    return load_config(name, kept | overrides), folder


def report(run: Run) -> None:
    """Print the result of a run, or how to continue it."""
    from cgan.cli.tables import print_run

    if not run.written_here:
        raise typer.Exit(128 + run.stopped_by if run.stopped_by else 0)
    if run.stopped_by is not None:
        messages.print(
            f"stopped after {run.images_seen:,} images; to continue: "
            f"cgan train --resume --out {shlex.quote(str(run.folder))}"
        )
        raise typer.Exit(128 + run.stopped_by)
    print_run(run, load_model(str(run.folder)))
