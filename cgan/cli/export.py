"""``cgan info`` and ``cgan export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cgan.cli.options import JsonOption, ModelArgument, load_model, results


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


def export(
    model: ModelArgument = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX, the only format.")] = True,
    out: Annotated[
        str | None,
        typer.Option(help="An .onnx file.", show_default="next to the generator file"),
    ] = None,
) -> None:
    """Export a generator as ONNX. cgan generate then runs without importing torch."""
    from cgan.sampling.export import export as write_export
    from cgan.storage.paths import newest_model

    chosen = model if model is not None else newest_model()
    results.print(str(write_export(chosen, None if out is None else Path(out))))
