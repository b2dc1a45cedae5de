"""From a name or a folder to shuffled batches on the training device."""

from cgan.data.folder import PictureFolder
from cgan.data.loader import Loader, epoch_order
from cgan.data.sources import (
    SOURCES,
    Pictures,
    Split,
    check_classes,
    load_pictures,
    load_split,
    look_at,
    say_held_out,
)

__all__ = [
    "SOURCES",
    "Loader",
    "PictureFolder",
    "Pictures",
    "Split",
    "check_classes",
    "epoch_order",
    "load_pictures",
    "load_split",
    "look_at",
    "say_held_out",
]
