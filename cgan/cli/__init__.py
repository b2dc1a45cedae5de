"""The command line. ``cgan --help`` imports neither torch nor pydantic."""

from cgan.cli.app import app, main

__all__ = ["app", "main"]
