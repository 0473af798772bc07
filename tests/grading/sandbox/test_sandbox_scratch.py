"""A scratch folder is emptied whatever was left in it, and nothing outside is touched."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import bontune.grading.sandbox.inside.scratch as scratch


def empty(folder: Path) -> bool:
    return scratch.empty(str(folder), deadline=time.monotonic() + 60.0)


def test_everything_goes_but_what_links_point_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    folder = tmp_path / "scratch"
    (folder / "a" / "b" / "c").mkdir(parents=True)
    for place in (folder, folder / "a", folder / "a" / "b" / "c"):
        for name in ("file", ".hidden", "-rf", "new\nline", "λ", os.fsdecode(b"\xff")):
            (place / name).write_text("x")
        (place / "to_folder").symlink_to(outside)
        (place / "to_file").symlink_to(outside / "kept")
        (place / "to_itself").symlink_to("to_itself")
        (place / "to_root").symlink_to("/")
        os.mkfifo(place / "pipe")
        (place / "full").mkdir()
        (place / "full" / "file").touch()
    (folder / "locked" / "inner").mkdir(parents=True)
    (folder / "locked" / "inner").chmod(0)
    (folder / "locked").chmod(0)
    (folder / "read_only").mkdir()
    (folder / "read_only" / "file").touch()
    (folder / "read_only").chmod(0o500)
    assert empty(folder)
    assert os.listdir(folder) == []
    assert (outside / "kept").read_text() == "x"
    assert empty(folder)


def test_more_nested_folders_than_the_stack_holds(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    assert scratch.is_too_large(str(tmp_path))
    assert empty(tmp_path)
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_counted_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(0)  # nothing can be put there
    assert not scratch.is_too_large(str(tmp_path))
    (tmp_path / "filled").mkdir(0o300)
    assert scratch.is_too_large(str(tmp_path))
    assert empty(tmp_path)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=descriptor)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    assert scratch.is_too_large(str(tmp_path))
    assert empty(tmp_path)


def test_the_deadline_and_a_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not scratch.empty(str(tmp_path), deadline=time.monotonic() - 1.0)
    assert not empty(tmp_path / "missing")


def test_what_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MAX_ENTRIES", 100)
    assert not scratch.is_too_large(str(tmp_path))
    (tmp_path / "a").mkdir()
    for number in range(scratch.MAX_ENTRIES - 1):
        (tmp_path / "a" / str(number)).touch()
    assert not scratch.is_too_large(str(tmp_path))
    (tmp_path / "b").touch()
    assert scratch.is_too_large(str(tmp_path))
    assert empty(tmp_path)
    with open(tmp_path / "bytes", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, scratch.MAX_BYTES + 1)
    assert scratch.is_too_large(str(tmp_path))
    with open(tmp_path / "bytes", "wb") as file:
        file.truncate(scratch.MAX_BYTES * 10)  # a hole takes no room
    assert not scratch.is_too_large(str(tmp_path))
