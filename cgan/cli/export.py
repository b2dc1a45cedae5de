"""``cgan info``, ``cgan export``, ``cgan push`` and ``cgan show``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cgan.cli.options import JsonOption, ModelArgument, load_model, messages, results
from cgan.errors import ConfigError, FileError
from cgan.storage.atomic import explain_write_error


def info(model: ModelArgument = None, as_json: JsonOption = False) -> None:
    """Describe a generator file: config, classes, measurements, size."""
    from cgan.cli import tables
    from cgan.models import count_parameters

    sampler = load_model(model)
    if as_json:
        parameters = count_parameters(sampler.generator)
        header = {"file": str(sampler.path), "parameters": parameters, **sampler.header}
        typer.echo(json.dumps(header))
    else:
        tables.print_file(sampler)


OnnxOption = Annotated[
    bool,
    typer.Option("--onnx", help="Write ONNX. Without --html this is the default."),
]
OutOption = Annotated[
    str | None,
    typer.Option(help="An .onnx file.", show_default="next to the generator file"),
]
OpsetOption = Annotated[
    int | None,
    typer.Option(
        help="The opset of the ONNX file, 17 to 23; onnx2torch reads 17.", show_default="20"
    ),
]
HtmlOption = Annotated[
    str | None,
    typer.Option(help="Write a page that draws in a browser: one .html file, without a server."),
]


def export(
    model: ModelArgument = None,
    onnx: OnnxOption = False,
    out: OutOption = None,
    opset: OpsetOption = None,
    html: HtmlOption = None,
) -> None:
    """Export a generator: as ONNX, which draws without torch, or as a web page that draws."""
    from cgan.storage.paths import newest_model

    chosen = model if model is not None else newest_model()
    if html is not None and not onnx:
        if out is not None:
            raise ConfigError("--out is the path of the ONNX file: give --onnx too, or only --html")
        if opset is not None:
            raise ConfigError("--opset is that of the ONNX file: give --onnx too, or only --html")
    written = []
    if onnx or html is None:
        from cgan.sampling.export import OPSET
        from cgan.sampling.export import export as write_export

        target = None if out is None else Path(out)
        written.append(write_export(chosen, target, OPSET if opset is None else opset))
    if html is not None:
        from cgan.sharing.page import export_page

        written.insert(0, export_page(chosen, Path(html)))
    for path in written:
        results.print(str(path))


GeneratorArgument = Annotated[
    str, typer.Argument(help="A run folder or a generator file.", show_default=False)
]
RepositoryArgument = Annotated[
    str, typer.Argument(help="owner/name on the Hugging Face Hub.", show_default=False)
]
LicenseOption = Annotated[
    str | None,
    typer.Option(help="Licence of the model: mit, cc-by-4.0, …", show_default="it asks"),
]
PrivateOption = Annotated[bool, typer.Option("--private", help="Make a new repository private.")]
SpaceOption = Annotated[
    bool, typer.Option("--space", help="Publish the page that draws as a static Space, too.")
]
ReportOption = Annotated[
    bool,
    typer.Option("--report", help="Publish report.html of the run, too. It shows training images."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Send nothing; show the files.")]


def push(
    model: GeneratorArgument,
    repository: RepositoryArgument,
    license: LicenseOption = None,
    private: PrivateOption = False,
    space: SpaceOption = False,
    report: ReportOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Publish a generator on the Hugging Face Hub, with its judge, a card and a page that draws."""
    if license is None:
        if not sys.stdin.isatty():
            raise ConfigError("a published model needs a licence: --license mit, cc-by-4.0, …")
        license = typer.prompt("licence of the model (mit, cc-by-4.0, other, …)", err=True)
    from cgan.sharing.push import push as publish

    pushed = publish(
        model, repository, license=license, private=private, space=space, report=report,
        dry_run=dry_run,
    )  # fmt: skip
    for name, size in pushed.files.items():
        messages.print(f"{size:>12,} bytes  {name}")
    if dry_run:
        messages.print("nothing was sent; this is README.md:")
        for line in pushed.card.splitlines():
            results.print(line)
        return
    if pushed.space is not None:
        messages.print(f"the page: {pushed.space}")
    results.print(pushed.name)


def show(model: ModelArgument = None) -> None:
    """Show a generator in a browser: choose a class, move through seeds, mix, walk."""
    import tempfile
    import webbrowser

    from cgan.sharing.page import render_page

    text = render_page(load_model(model))
    page = Path(tempfile.gettempdir(), "cgan.html")
    try:
        page = Path(tempfile.mkdtemp(prefix="cgan-"), page.name)
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileError(explain_write_error(error, page)) from error
    results.print(str(page))
    if not webbrowser.open(page.as_uri()):
        messages.print("no browser was found: open this file in one")
