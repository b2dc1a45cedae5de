"""``python -m benchmarks speed | table | recipes | evaluation | reliability | pack | release``.

The commands print Markdown to stdout, including the machine.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.machine import machine
from benchmarks.reliability.command import reliability

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.command()(reliability)


def seconds(*command: str) -> float:
    """Wall-clock time of a command in seconds."""
    before = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - before


@app.command()
def speed(
    configs: Annotated[
        list[str] | None,
        typer.Argument(help="Configs, or config@batch [mnist-mlp mnist-dcgan digits-mlp]."),
    ] = None,
    data_dir: Annotated[str | None, typer.Option(help="Folder of MNIST [$CGAN_DATA].")] = None,
    minutes: Annotated[
        float, typer.Option(help="Budget for time to control accuracy, in minutes; 0 skips it.")
    ] = 1.0,
    seconds: Annotated[float, typer.Option(help="Duration of each timed `cgan.train`.")] = 8.0,
    out: Annotated[Path, typer.Option(help="Folder for performance-DEVICE.json.")] = Path("docs"),
) -> None:
    """Measure steps, loader, `train`, sampling, start-up, time to control, and a textbook loop."""
    from benchmarks.speed import measure, to_json, to_table

    names = configs or ["mnist-mlp", "mnist-dcgan", "digits-mlp"]
    results = {"machine": machine(), **measure(names, data_dir, minutes, seconds)}
    out.mkdir(parents=True, exist_ok=True)
    (out / f"performance-{results['device'].partition(':')[0]}.json").write_text(to_json(results))
    print(to_table(results, machine()))


@app.command()
def table(
    configs: Annotated[list[str], typer.Argument()],
    minutes: float = 5.0,
    plain_minutes: Annotated[
        float, typer.Option(help="Budget of plain GANs (control accuracy: chance).")
    ] = 2.0,
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs/table"),
) -> None:
    """The table of the README: each config, conditional and plain, and the packaged generator."""
    folders: dict[str, str] = {}
    for name in configs:
        for kind in ("conditional", "plain"):
            folder = out / f"{name}-{kind}"
            folders[f"{name}, {kind}"] = str(folder)
            if not folder.exists():
                words = ["cgan", "train", name, f"--{kind}", "--out", str(folder)]
                spent = minutes if kind == "conditional" else plain_minutes
                subprocess.run([*words, "--minutes", str(spent)], check=True)
    print_reports({**folders, "mnist, packaged": "mnist"})


@app.command()
def recipes(
    names: Annotated[list[str] | None, typer.Argument(help="Recipes; default all.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs/recipes"),
    measure_only: Annotated[bool, typer.Option(help="Evaluate existing runs only.")] = False,
) -> None:
    """The table of docs/recipes.md: train and evaluate each recipe, one after another."""
    from benchmarks.recipes import BASE, RECIPES

    folders: dict[str, str] = {}
    for name in names or RECIPES:
        config, changes = RECIPES[name]
        folder = out / name
        if not folder.exists() and not measure_only:
            settings = {**BASE[config], "eval_every_images": 0, "control_per_class": 0, **changes}
            words = [w for key, value in settings.items() for w in ("--set", f"{key}={value}")]
            subprocess.run(["cgan", "train", config, *words, "--out", str(folder)], check=True)
        if folder.exists():
            folders[name] = str(folder)
    print_reports(folders)


def print_reports(models: dict[str, str]) -> None:
    """Print a Markdown table: a row for real images, then a row per generator."""
    import cgan
    from cgan.data import load_split
    from cgan.evaluation.control import Control
    from cgan.evaluation.feature_set import draw_by_class
    from cgan.evaluation.judge_training import find_judge
    from cgan.evaluation.reference import Reference
    from cgan.evaluation.sections import known

    data = cgan.load_config("mnist-dcgan").data
    splits = {split: load_split(data, split) for split in ("train", "test")}
    reference = Reference(find_judge(splits.__getitem__), splits.__getitem__)
    print(f"{machine()}; 10,000 images each; features: {reference.network.name}\n")
    headings = ["", "control accuracy", "worst class", "FID", "worst intra-class FID", "recall"]
    headings += ["coverage", "least diversity", "images", "minutes"]
    print(f"| {' | '.join(headings)} |")
    print("|---" * 10 + "|")

    def row(name: str, control: Control, fids: list, manifold, diversity: list, last: str) -> None:
        fid, *class_fids = fids
        print(
            f"| {name} | {100 * control.accuracy:.2f} % "
            f"| {100 * control.per_class[control.worst]:.1f} % | {fid:.3f} "
            f"| {max(known(class_fids)):.2f} | {100 * manifold.recall:.1f} % "
            f"| {100 * manifold.coverage:.1f} % | {min(known(diversity)):.2f} | {last} |",
            flush=True,
        )

    real = reference
    real_fids = [real.fid, *real.class_fids]
    row("real images", real.control, real_fids, real.manifold, real.diversity, " | ")
    labels = range(10)
    for name, path in models.items():
        sampler = cgan.load(path)
        drawn = reference.extract(draw_by_class(sampler, reference.per_class), 10_000)
        header = sampler.header
        row(
            name,
            Control.of(reference.judge, drawn.target, drawn.predicted, sampler.conditional),
            [real.fid_of(drawn), *(real.fid_of(drawn, k) for k in labels)],
            real.manifold_of(drawn),
            [real.diversity_of(drawn, k) for k in labels],
            f"{header['images_seen']:,} | {header['seconds'] / 60:.1f}",
        )


@app.command()
def evaluation(model: Annotated[str, typer.Argument()] = "mnist", per_class: int = 1_000) -> None:
    """Wall-clock time of `cgan evaluate` as a process, with a cached judge."""
    words = ("cgan", "evaluate", model, "--per-class", str(per_class), "--json")
    seconds(*words)  # trains and caches the judge if needed
    times = [seconds(*words) for _ in range(3)]
    print(f"{machine()}; median of 3: {statistics.median(times):.0f} s")
    print(f"(min {min(times):.0f}, max {max(times):.0f})")


@app.command()
def pack(
    run: Annotated[Path, typer.Argument(help="A run of configs/mnist.yaml.")],
    machine_said: Annotated[str, typer.Option("--machine", help="The training machine.")],
) -> None:
    """Package a run's generator and judge, with a model card, an ONNX export and a report.

    If the run is `cgan/packaged/mnist`, evaluate it again without rewriting its report.
    """
    from dataclasses import replace

    import cgan
    from cgan.evaluation.html import render_page
    from cgan.evaluation.judge import Judge
    from cgan.sampling.export import export
    from cgan.storage.checkpoint import GENERATOR, new_header, save_tensors
    from cgan.storage.metrics import read_curves
    from cgan.storage.paths import GENERATOR_FILE, JUDGE_FILE, PACKAGED

    sampler = cgan.load(run)
    folder = PACKAGED / sampler.config.name
    tensors = sampler.generator.state_dict()
    save_tensors(folder / GENERATOR_FILE, tensors, sampler.header)
    Judge.load(run / JUDGE_FILE).save(folder / JUDGE_FILE)
    measured = cgan.evaluate(sampler.config.name, cas=True)
    if curves := read_curves(run):
        page = render_page([replace(measured, curves=curves)])
        Path("docs", f"{sampler.config.name}.html").write_text(page, encoding="utf-8")
    report = measured.to_dict()
    card = {
        "what": "Generates 28×28 grey images of handwritten digits by class.",
        "command": "cgan train mnist",
        "machine": machine_said,
        "data": "the 60,000 training images of MNIST, by Yann LeCun and Corinna Cortes",
        "data_licence": "CC BY-SA 3.0",
        "licence": "MIT, like the code",
        "limits": "It only generates digits in the style of MNIST, and some of them are wrong: "
        "cgan generate --verify redraws images that the judge assigns to another digit.",
        "pictures": report["pictures"],
        "features": report["features"],
        "figures": report["figures"],
    }
    found = {figure.key: figure for figure in measured.figures}
    summary = {
        **measured.control.to_dict(),
        "fid": found["fid"].value,
        "fid_real": found["fid"].real,
        "diversity_least": found["diversity_least"].value,
        "background_ink": found["background_ink"].value,
        "features": measured.features,
    }
    header = {**sampler.header, **new_header(GENERATOR), "measured": summary, "card": card}
    save_tensors(folder / GENERATOR_FILE, tensors, header)
    export(folder / GENERATOR_FILE)
    for path in sorted(folder.iterdir()):
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


@app.command()
def release() -> None:
    """Run the tests marked slow, which must pass before a release."""
    words = (sys.executable, "-m", "pytest", "-m", "slow", "-n", "0", "--durations", "10")
    raise typer.Exit(subprocess.run(words).returncode)


if __name__ == "__main__":
    app()
