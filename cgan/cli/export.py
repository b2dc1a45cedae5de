"""``cgan info``, ``cgan export`` and ``cgan show``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cgan.cli.options import JsonOption, ModelArgument, load_model, messages, results
from cgan.errors import ConfigError


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
    if html is not None:
        from cgan.sharing.page import export_page

        results.print(str(export_page(chosen, Path(html))))
    if onnx or html is None:
        from cgan.sampling.export import OPSET
        from cgan.sampling.export import export as write_export

        target = None if out is None else Path(out)
        results.print(str(write_export(chosen, target, OPSET if opset is None else opset)))


def show(model: ModelArgument = None) -> None:
    """Show a generator in a browser: choose a class, move through seeds, mix, walk."""
    import tempfile
    import webbrowser

    from cgan.sharing.page import render_page

    text = render_page(load_model(model))
    page = Path(tempfile.mkdtemp(prefix="cgan-"), "cgan.html")
    page.write_text(text, encoding="utf-8")
    results.print(str(page))
    if not webbrowser.open(page.as_uri()):
        messages.print("no browser was found: open this file in one")
