"""``cgan push``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cgan.cli.options import messages, results
from cgan.errors import ConfigError

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
