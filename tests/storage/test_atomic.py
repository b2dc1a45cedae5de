"""A write that fails leaves what was there."""

import errno
import os
import stat
from contextlib import nullcontext
from pathlib import Path

import pytest

from cgan.errors import FileError
from cgan.storage.atomic import (
    lock,
    remove_old_temporary_files,
    rename,
    sync_files,
    write_atomically,
)


def test_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission")]
)
def test_failure_keeps_the_old_file(
    code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match=words):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="cannot write"):
        write_atomically(tmp_path / "file" / "inside", b"")


def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_the_umask_of_the_process_is_never_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may create a file at any time."""

    def refuse(mask: int) -> int:
        raise AssertionError("the umask belongs to the whole process")

    monkeypatch.setattr(os, "umask", refuse)
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_all_files_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / str(index) for index in range(50)]
    for path in paths:
        path.write_bytes(b"x")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))
    sync_files(iter(paths))
    assert sorted(synced) == sorted(path.stat().st_ino for path in paths)
    with pytest.raises(FileNotFoundError):
        sync_files([tmp_path / "none"])


@pytest.mark.parametrize(("code", "fails"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_whose_folders_cannot_be_synced(
    code: int, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is written by then."""

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(FileError) if fails else nullcontext():
        write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_disk_that_becomes_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file cannot be removed either; the sentence is about the write."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(os, "unlink", fail)
    with pytest.raises(FileError, match=f"no permission to write {tmp_path / 'file'}"):
        write_atomically(tmp_path / "file", b"new")


def test_a_rename_that_fails(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "old").write_bytes(b"old")
    with pytest.raises(FileError, match=f"cannot write {tmp_path / 'new'}"):
        rename(tmp_path / "old", tmp_path / "new")
    rename(tmp_path / "old", tmp_path / "newer")
    assert (tmp_path / "newer").read_bytes() == b"old"


def test_a_lock_removes_what_a_killed_run_left_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    end = "0123456789abcdef"
    left = [
        f".state-next.safetensors.{end}", f".config.yaml.{end}", f".metrics.jsonl.{end}",
        f".generator.onnx.{end}", f"samples/.000000640.png.{end}",
        ".state-next.safetensors.a_b1c2d3",  # version 0.2
    ]  # fmt: skip
    kept = [
        ".gitignore", "config.yaml", "samples/000000640.png", ".config.yaml.swp",
        ".state.safetensors.Xy12ab", "samples/.shot.png.part", ".notes.yaml.bak",
    ]  # fmt: skip
    for name in (*left, *kept):
        (tmp_path / name).touch()
    with lock(tmp_path, ".lock-shard"):
        assert all((tmp_path / name).exists() for name in left)  # another run's, perhaps
    with lock(tmp_path):
        pass
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found - {".lock", ".lock-shard"} == set(kept)


def test_only_old_temporary_files_of_a_shared_folder_are_removed(tmp_path: Path) -> None:
    old, new = (tmp_path / f".train.safetensors.{digit * 16}" for digit in "01")
    other = tmp_path / ".other"
    for path in (old, new, other):
        path.touch()
        if path != new:
            os.utime(path, (0, 0))
    remove_old_temporary_files(tmp_path)
    remove_old_temporary_files(tmp_path / "nowhere")
    assert sorted(tmp_path.iterdir()) == [other, new]


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="cannot write .*pipe: it is not a regular file; choose"):
        write_atomically(tmp_path / "pipe", b"new")
    assert (tmp_path / "pipe").is_fifo()
    assert len(list(tmp_path.iterdir())) == 1
