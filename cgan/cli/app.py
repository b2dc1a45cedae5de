"""The ``cgan`` command: its subcommands and error handling.

Results go to stdout, everything else to stderr. Errors are one sentence, with exit status 2.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cgan.cli import evaluate, export, generate, latent_space, train
from cgan.cli.options import messages
from cgan.console import printable
from cgan.errors import CganError


class Group(TyperGroup):
    """Prints a ``CganError`` as one line and exits with status 2."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Read the arguments of the group itself."""
        with _printable_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        logger = logging.getLogger("cgan")
        rank = os.environ.get("RANK", "0")  # set by torchrun
        logger.setLevel(logging.INFO if rank == "0" else logging.ERROR)
        logger.propagate = False
        logger.handlers = [_MessageHandler()]
        try:
            with _printable_errors():
                return super().invoke(ctx)
        except CganError as error:
            who = "cgan" if rank == "0" else f"cgan (process {rank})"
            messages.print(f"{who}: {error}", style="red")
            raise typer.Exit(2) from error


@contextmanager
def _printable_errors() -> Iterator[None]:
    """Escape arguments that Typer's usage errors repeat."""
    try:
        yield
    except Exception as error:
        # Typer's errors have no public base class: old versions take it from click.
        if isinstance(message := getattr(error, "message", None), str):
            error.message = printable(message)  # type: ignore[attr-defined]
        raise


class _MessageHandler(logging.Handler):
    """Prints the library's log messages on stderr, each one once.

    A folder, for example, is scanned once per split, with the same message.
    """

    def __init__(self) -> None:
        super().__init__()
        self.printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message in self.printed:
            return
        self.printed.add(message)
        if record.levelno >= logging.WARNING:
            messages.print(f"warning: {message}", style="yellow")
        else:
            messages.print(message)


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Train, sample and evaluate class-conditional GANs.",
    epilog="Start with:  cgan train --conditional   and then   cgan generate --digit 7",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from cgan import __version__

        typer.echo(f"cgan {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


app.command(
    epilog="Examples:  cgan train --conditional  |  cgan train --plain mnist-dcgan --minutes 5  |  "
    "cgan train --data ./my-images  |  cgan train --resume"
)(train.train)
app.command(
    epilog="Examples:  cgan steer runs/plain  |  cgan steer runs/plain --data mnist --minutes 4"
)(train.steer)
app.command(
    epilog="Examples:  cgan generate --digit 7  |  "
    "cgan generate runs/pets --class cat --class dog -n 8 --seed 3 --out pets.png  |  "
    "cgan generate --out drawn/"
)(generate.generate)
app.command(
    epilog="Examples:  cgan walk --from 3 --to 8  |  cgan walk runs/pets --from cat --style "
    "--frames 120 --out cats.webp"
)(latent_space.walk)
app.command(epilog="Examples:  cgan invert mnist seven.png  |  cgan invert runs/pets rex.png")(
    latent_space.invert
)
app.command(epilog="Examples:  cgan evaluate  |  cgan evaluate runs/pets --html report.html --cas")(
    evaluate.evaluate
)
app.command(epilog="Examples:  cgan compare runs/conditional runs/plain --html compare.html")(
    evaluate.compare
)
app.command(
    "augment-test",
    epilog="Examples:  cgan augment-test runs/pets --minutes 60  |  "
    "cgan augment-test runs/pets --recipe --html augment.html",
)(evaluate.augment_test)
app.command(epilog="Examples:  cgan info mnist  |  cgan info runs/mnist-dcgan --json")(export.info)
app.command(
    epilog="Examples:  cgan export  |  cgan export runs/pets --onnx --out pets.onnx  |  "
    "cgan export runs/pets --html pets.html"
)(export.export)
app.command(
    epilog="Examples:  cgan push runs/pets owner/pets --license mit --dry-run  |  "
    "cgan push runs/pets owner/pets --space"
)(export.push)
app.command(epilog="Examples:  cgan show  |  cgan show runs/pets")(export.show)


def main() -> None:
    """The entry point of the console script."""
    if isinstance(sys.stdout, TextIOWrapper):  # stderr escapes what it cannot encode by default
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="cgan")
    except SystemExit as ended:
        if os.environ.get("WORLD_SIZE", "1") != "1" and isinstance(ended.code, int):
            # A thread of torch.distributed that is still at work while Python shuts down aborts the
            # process, rarely: torchrun would take a run that has finished for a failed one.
            with suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(ended.code)
        raise
