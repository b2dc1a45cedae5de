"""The three splits of a data set, by a hash of each image's content.

Generators and judges are trained on ``train``. Evaluations during training, and the choice of the
best generator, use ``validation``. Reports use ``test``. An image's split depends on its own
content only, so adding, removing or renaming other images does not move it. There is one exception:
if all images of a class would be held out, they are training images. Copies of an image in a folder
are in the same split, also if they are in different classes; so are images of the same group.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

UNLABELLED_FOLDERS = ("_unlabelled", "_unlabeled")
"""Folders whose images have no label."""

logger = logging.getLogger("cgan")

Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

VALIDATION_FRACTION = 0.1
"""Expected fraction of the images in ``validation``."""
FOLDER_TEST_FRACTION = 0.1
"""Expected fraction of a folder's images in ``test``."""


def split_indices(
    digests: Sequence[bytes],
    labels: Tensor,
    split: Split,
    *,
    test: float,
    validation: float = VALIDATION_FRACTION,
) -> Tensor:
    """Indices of the images in one split, in order.

    Args:
        digests: a hash of each image, at least 8 uniformly distributed bytes.
        labels: int64 (N,). A class without any training image keeps all its images for training;
            -1 is no class.
        split: the split to return.
        test: expected fraction of the images in ``test``; 0 if the data has its own test set.
        validation: expected fraction in ``validation``.
    """
    heads = np.frombuffer(b"".join(digest[:8] for digest in digests), ">u8")
    numbers = heads / 2.0**64
    parts = np.where(numbers < test, 2, np.where(numbers < test + validation, 1, 0))
    classes = labels.numpy()
    has_training_images = np.isin(classes, classes[parts == 0])
    moved = ~has_training_images & (classes >= 0)
    parts[np.isin(heads, heads[moved])] = 0  # with their copies in other classes
    return torch.from_numpy((parts == SPLITS.index(split)).nonzero()[0])


def is_below(digest: bytes, fraction: float) -> bool:
    """Whether a hash is among the lowest: the first ``fraction`` of the range of its numbers."""
    return int.from_bytes(digest[:8], "big") / 2.0**64 < fraction


def folder_split_indices(
    digests: Sequence[bytes],
    labels: Tensor,
    given: Sequence[Split | None],
    split: Split,
    *,
    test: float,
    groups: Sequence[str | None] = (),
) -> Tensor:
    """Indices of the images in one split of a folder that may have folders ``val`` and ``test``.

    A split that the folder lacks is taken out of the other images, by a hash. An image that is also
    in a held-out split, or another one of its group, is left out of the training images. One that
    is in both held-out splits is a test image.

    Args:
        digests, labels, split, test: see ``split_indices``.
        given: the split of each image; None if it has none.
        groups: the group of each image, whose images are in one split; None if it has none.
    """
    keys = group_keys(digests, groups) if groups else digests
    held_out: dict[Split, set[bytes]] = {"test": set(), "validation": set()}
    for key, one in zip(keys, given, strict=True):
        if one in held_out:
            held_out[one].add(key)
    above = {"test": set(), "validation": held_out["test"], "train": set.union(*held_out.values())}
    of_split = {
        name: torch.tensor(
            [
                index
                for index, one in enumerate(given)
                if (one or "train") == name and keys[index] not in above[name]
            ],
            dtype=torch.int64,
        )
        for name in SPLITS
    }
    if held_out.get(split):
        return of_split[split]
    rest = of_split["train"]
    if split == "train" and (
        leaked := sum((one or "train") == "train" for one in given) - len(rest)
    ):
        logger.warning(
            "%s training images%s are also in a held-out split: they are left out of training",
            f"{leaked:,}",
            ", or others of their group," if any(groups) else "",
        )
    chosen = split_indices(
        [keys[index] for index in rest.tolist()],
        labels[rest],
        split,
        test=0 if held_out["test"] else test,
        validation=0 if held_out["validation"] else VALIDATION_FRACTION,
    )
    return rest[chosen]


def group_keys(digests: Sequence[bytes], groups: Sequence[str | None]) -> list[bytes]:
    """A hash of each image that is the same for all images of a group, and for all their copies.

    Groups that share an image count as one, so that no copy is in another split.
    """
    first: dict[str, str] = {}  # by group, another one of the same component, or itself

    def root(group: str) -> str:
        while first[group] != group:
            group = first[group]
        return group

    of_digest: dict[bytes, str] = {}
    for digest, group in zip(digests, groups, strict=True):
        if group is None:
            continue
        first.setdefault(group, group)
        low, high = sorted((root(group), root(of_digest.setdefault(digest, group))))
        first[high] = low
    return [
        hashlib.sha256(root(of_digest[digest]).encode("utf-8", "replace")).digest()
        if digest in of_digest
        else digest
        for digest in digests
    ]


def image_digests(images: Tensor) -> list[bytes]:
    """SHA-256 of each image, uint8 (N, C, H, W)."""
    return [hashlib.sha256(image.tobytes()).digest() for image in images.contiguous().numpy()]
