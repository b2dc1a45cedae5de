"""``python -m benchmarks COMMAND``: measurements for the docs; ``--help`` lists them.

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

CIFAR10_JUDGE = Path(__file__).parent / "cifar10-judge.safetensors"
"""Trained by ``train_judge`` on CIFAR-10's training images: right on 85.3 % of its test images."""

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
    data: Annotated[
        Path | None, typer.Option(help="A folder of images for all configs, such as folder-dcgan.")
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="Budget for time to control accuracy, in minutes; 0 skips it.")
    ] = 1.0,
    seconds: Annotated[float, typer.Option(help="Duration of each timed `cgan.train`.")] = 8.0,
    against: Annotated[str | None, typer.Option(help="A revision to compare with.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for performance-DEVICE.json.")] = Path("docs"),
) -> None:
    """Measure steps, loader, `train`, sampling, start-up, time to control, and a textbook loop."""
    from benchmarks.speed import measure, to_json, to_table

    names = configs or ["mnist-mlp", "mnist-dcgan", "digits-mlp"]
    results = {"machine": machine(), **measure(names, data_dir, minutes, seconds, data)}
    out.mkdir(parents=True, exist_ok=True)
    (out / f"performance-{results['device'].partition(':')[0]}.json").write_text(to_json(results))
    print(to_table(results, machine()))
    if against is not None:
        from benchmarks.against import speed_ratios

        options = ["--minutes", "0", "--seconds", f"{seconds}"]
        options += ["--data-dir", data_dir] if data_dir else []
        options += ["--data", str(data.resolve())] if data else []
        print(speed_ratios(results, against, [*names, *options]))


@app.command()
def busy(
    configs: Annotated[list[str] | None, typer.Argument(help="Configs [all three].")] = None,
    against: Annotated[str | None, typer.Option(help="A revision to compare with.")] = None,
    data: Annotated[str, typer.Option(help="The folder of images of folder-dcgan.")] = "",
    data_dir: Annotated[str, typer.Option(help="Folder of MNIST [$CGAN_DATA].")] = "",
    seconds: Annotated[float, typer.Option(help="Duration of each training.")] = 8.0,
    repeats: Annotated[int, typer.Option(help="Trainings per figure.")] = 3,
) -> None:
    """Images/s alone, beside one and two busy programs, and of two trainings at once."""
    from benchmarks.busy import CONFIGS, measure

    print(f"{machine()}; images/s, and the fraction of those alone\n")
    measure(configs or list(CONFIGS), against, seconds, repeats, data, data_dir)


@app.command()
def record(
    entries: Annotated[
        list[str] | None, typer.Argument(help="Entries [those that need no --python].")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Budget of each run.")] = 75,
    every: Annotated[float, typer.Option(help="Seconds between two measurements.")] = 3,
    seeds: Annotated[int, typer.Option(help="Runs per entry.")] = 3,
    python: Annotated[
        list[str] | None,
        typer.Option(help="ENTRY=PATH: the Python of an entry that has its own environment."),
    ] = None,
    against: Annotated[str | None, typer.Option(help="A revision to compare with.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file [in docs].")] = None,
    data: Annotated[
        Path | None, typer.Option(help="A folder of pictures, in place of MNIST.")
    ] = None,
    minutes: Annotated[
        list[float] | None, typer.Option(help="Budgets with --data [5 and 15].")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of what is drawn, with --data.")] = Path(
        "runs/record"
    ),
) -> None:
    """Seconds to 95, 98, 99 and 99.5 % control on MNIST (docs/record.md), or, with --data, control
    of photographs after equal time."""
    from benchmarks.record import harness, pictures

    pythons = {name: Path(path) for name, _, path in (one.partition("=") for one in python or [])}
    own = [name for name in harness.OWN if data or name != "cgan_untaught"]
    names = entries or [*own, *pythons]
    if data is None:
        results = harness.record(names, seconds, every, seeds, pythons, against)
        harness.write(results, out or Path("docs/record.json"))
        print(harness.to_table(results))
        return
    results = pictures.record(names, data, minutes or [5, 15], seeds, pythons, against, runs)
    harness.write(results, out or Path("docs/record-pictures.json"))
    print(pictures.to_table(results))


@app.command()
def gallery(
    configs: Annotated[
        list[str] | None, typer.Argument(help="Configs [all of the gallery].")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs/gallery"),
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("docs"),
) -> None:
    """Train every config in its default budget: pictures and table of docs/gallery.md."""
    from benchmarks.gallery import CONFIGS
    from benchmarks.gallery import gallery as make_gallery

    print(f"{machine()}\n")
    make_gallery(configs or list(CONFIGS), runs, out)


@app.command()
def page(model: Annotated[str, typer.Argument(help="A generator.")] = "mnist") -> None:
    """Size and speed of the page of a generator, in Chromium."""
    from benchmarks.page import measure

    print(f"{machine()}\n")
    measure(model)


@app.command()
def table(
    data: Annotated[
        Path | None, typer.Option(help="A folder of images instead of MNIST, with folder-dcgan.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs per row.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs/table"),
) -> None:
    """The table "MNIST, three seeds" of benchmarks/RECIPES.md: mean and range over seeds."""
    from benchmarks.table import ROWS, Row, print_table

    print(f"{machine()}; {seeds} seeds; 1,000 images per class\n", flush=True)
    if data is None:
        print_table(ROWS, ("mnist",), seeds, out)
    else:
        rows = {"folder-dcgan": Row("folder-dcgan", "390k", ("--data", str(data)))}
        print_table(rows, (), seeds, out)


@app.command()
def recipes(
    names: Annotated[list[str] | None, typer.Argument(help="Recipes; default all.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs/recipes"),
    measure_only: Annotated[bool, typer.Option(help="Evaluate existing runs only.")] = False,
) -> None:
    """The tables of benchmarks/RECIPES.md: train and evaluate each recipe, one after another."""
    from benchmarks.recipes import BASE, RECIPES
    from benchmarks.table import evaluate, print_header, table_row, train_run

    rows: dict[str, str] = {}
    real = ""
    for name in names or RECIPES:
        config, changes = RECIPES[name]
        folder = out / name
        if not measure_only:
            settings = {**BASE[config], "eval_every_images": 0, "control_per_class": 0, **changes}
            words = [w for key, value in settings.items() for w in ("--set", f"{key}={value}")]
            train_run([config, *words], folder)
        if folder.exists():
            figures, real_figures = evaluate(str(folder))
            rows[name], real = table_row(name, [figures]), table_row("real images", [real_figures])
    print(f"{machine()}; 10,000 images each\n")
    print_header()
    print("\n".join([real, *rows.values()]))


@app.command()
def photographs(
    cifar: Annotated[Path, typer.Argument(help="CIFAR-10 as folders: train/ and test/.")],
    data: Annotated[Path, typer.Option(help="The folder to train on.")],
    names: Annotated[list[str] | None, typer.Option("--recipe", help="Default: all.")] = None,
    images: Annotated[str, typer.Option(help="Budget of each.")] = "80k",
    judge: Annotated[Path, typer.Option(help="Trained if missing.")] = CIFAR10_JUDGE,
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs/photographs"),
) -> None:
    """The tables of photographs in benchmarks/RECIPES.md, seen by a judge of all of CIFAR-10."""
    from benchmarks.photographs import RECIPES, run

    print(f"{machine()}; 1,000 images per class\n")
    run(names or list(RECIPES), data, cifar, images, judge, out)


@app.command()
def cifar10_part(
    count: Annotated[int, typer.Argument(help="Training images: 5000 or 10000.")],
    out: Annotated[Path, typer.Argument(help="Folder of the new data set.")],
    cifar: Annotated[
        Path, typer.Option(help="Where torchvision finds CIFAR-10, or downloads it to.")
    ] = Path("cifar10"),
) -> None:
    """A tenth or a fifth of CIFAR-10, the same images as in data-efficient-gans."""
    from benchmarks.photographs import write_part

    write_part(count, cifar, out)


@app.command()
def warm_start(
    cifar: Annotated[Path, typer.Argument(help="CIFAR-10 as folders: train/ and test/.")],
    runs: Annotated[list[Path], typer.Argument(help="Runs of some of its classes, of any size.")],
    judge: Annotated[Path, typer.Option(help="Trained if missing.")] = CIFAR10_JUDGE,
) -> None:
    """The tables of sizes and of warm starts in benchmarks/RECIPES.md."""
    from benchmarks.photographs import load_cifar_judge
    from benchmarks.warm_start import print_table

    print(f"{machine()}; 1,000 images per class\n")
    print_table(runs, *load_cifar_judge(cifar, judge))


@app.command()
def eyes(
    runs: Annotated[list[Path], typer.Argument(help="Runs of the same classes.")],
    out: Annotated[Path, typer.Option(help="Folder for the sheets and the key.")] = Path("eyes"),
    each: Annotated[int, typer.Option(help="Drawn pictures of each run.")] = 100,
    real: Annotated[int, typer.Option(help="Real test pictures.")] = 150,
    answers: Annotated[
        list[Path] | None, typer.Option(help="Score these files; nothing is drawn.")
    ] = None,
) -> None:
    """Write sheets of pictures for viewers to name, or score what they answered."""
    from benchmarks.eyes import print_scores, write_sheets

    if answers:
        print_scores(out, answers)
    else:
        count = write_sheets(runs, out, each, real)
        print(f"{count} pictures: give the sheets of {out} to viewers, and keep its key from them")


@app.command()
def readers(
    runs: Annotated[list[Path], typer.Argument(help="Runs on the same photographs of CIFAR-10.")],
    cifar: Annotated[Path, typer.Option(help="A folder with train/ and test/ of CIFAR-10.")],
) -> None:
    """The judges of photographs: on drawn pictures, and with few photographs."""
    from benchmarks.readers import print_tables

    print_tables(runs, cifar)
    print(f"\n{machine()}")


@app.command()
def steer(
    plain: Annotated[Path, typer.Argument(help="A run of a plain GAN.")],
    steered: Annotated[Path, typer.Argument(help="The run of cgan steer.")],
    scratch: Annotated[Path | None, typer.Option(help="A conditional run, for comparison.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write pictures: NAME-plain.png, NAME-rejection.png, …")
    ] = None,
) -> None:
    """The tables of steering in benchmarks/PERFORMANCE.md: plain, rejected, steered, trained."""
    from benchmarks.steer import print_table

    print(f"{machine()}; 1,000 images per class\n")
    print_table(plain, steered, scratch, picture)


@app.command()
def inversion(
    model: Annotated[str, typer.Argument(help="A run or a generator file.")] = "mnist",
    data: Annotated[str, typer.Option(help="Its data.")] = "mnist",
    count: Annotated[int, typer.Option(help="Test images.")] = 500,
    picture: Annotated[Path | None, typer.Option(help="Write a picture of some.")] = None,
) -> None:
    """The figures of inversion in docs/latent-space.md, and of a style in other classes."""
    from benchmarks.inversion import measure

    print(f"{machine()}\n")
    measure(model, data, count, picture)


@app.command()
def evaluation(model: Annotated[str, typer.Argument()] = "mnist", per_class: int = 1_000) -> None:
    """Wall-clock time of `cgan evaluate` as a process, with a cached judge."""
    words = ("cgan", "evaluate", model, "--per-class", str(per_class), "--json")
    seconds(*words)  # trains and caches the judge if needed
    times = [seconds(*words) for _ in range(3)]
    print(f"{machine()}; median of 3: {statistics.median(times):.0f} s")
    print(f"(min {min(times):.0f}, max {max(times):.0f})")


def pack_encoder(folder: Path) -> None:
    """Store the encoder of `cgan invert` beside a packaged generator, with its reference."""
    import shutil

    import cgan
    from cgan.evaluation.invert import encoder_path, get_or_train_encoder
    from cgan.storage.paths import ENCODER_FILE

    sampler = cgan.load(folder)
    (folder / ENCODER_FILE).unlink(missing_ok=True)
    get_or_train_encoder(sampler, progress=True)
    cgan.invert(sampler, sampler.sample(None, 1)[0])  # measures the distances of test images
    shutil.copyfile(encoder_path(sampler), folder / ENCODER_FILE)


@app.command()
def pack(
    run: Annotated[Path, typer.Argument(help="A run of configs/mnist.yaml.")],
    machine_said: Annotated[str, typer.Option("--machine", help="The training machine.")],
) -> None:
    """Package a run's generator, judge and encoder, with a model card, an ONNX export, a report
    and a page.

    If the run is `cgan/packaged/mnist`, evaluate it again; its report then has no training curves.
    """
    from dataclasses import replace

    import cgan
    from cgan.evaluation.judge import Judge
    from cgan.evaluation.report import render_report
    from cgan.sampling.export import export
    from cgan.sharing.page import export_page
    from cgan.storage.checkpoint import GENERATOR, new_header, save_tensors
    from cgan.storage.paths import GENERATOR_FILE, JUDGE_FILE, PACKAGED
    from cgan.storage.run_files import read_curves

    sampler = cgan.load(run)
    folder = PACKAGED / sampler.config.name
    tensors = sampler.generator.state_dict()
    save_tensors(folder / GENERATOR_FILE, tensors, sampler.header)
    Judge.load(run / JUDGE_FILE).save(folder / JUDGE_FILE)
    measured = cgan.evaluate(sampler.config.name, cas=True, second_judge=True)
    page = render_report([replace(measured, curves=read_curves(run))])
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
    pack_encoder(folder)
    export_page(sampler.config.name, Path("docs/draw.html"))
    for path in sorted(folder.iterdir()):
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


@app.command()
def release() -> None:
    """Run the tests marked slow, which must pass before a release."""
    words = (sys.executable, "-m", "pytest", "-m", "slow", "-n", "0", "--durations", "10")
    raise typer.Exit(subprocess.run(words).returncode)


if __name__ == "__main__":
    app()
