from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from satbench.core import files
from satbench.core.files import atomic_path, sweep, write_bytes, write_text


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def fail_halfway(path: Path, error: BaseException) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise error


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"\x00\xff")

    assert (tmp_path / "file").read_bytes() == b"\x00\xff"


def test_text_is_utf8_with_its_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "ε\r\n\n")

    assert (tmp_path / "file").read_bytes() == b"\xce\xb5\r\n\n"


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "file", "x")

    assert (tmp_path / "a" / "b" / "file").read_text() == "x"


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old, and longer")
    write_text(tmp_path / "file", "new")

    assert (tmp_path / "file").read_text() == "new"


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "x")

    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt("no")])
def test_nothing_is_left_after_an_error_or_an_interrupt(
    tmp_path: Path, error: BaseException
) -> None:
    with pytest.raises(type(error), match="no"):
        fail_halfway(tmp_path / "file", error)

    assert list(tmp_path.iterdir()) == []


def test_the_old_content_stays_after_an_error(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with pytest.raises(ValueError, match="no"):
        fail_halfway(tmp_path / "file", ValueError("no"))

    assert (tmp_path / "file").read_text() == "old"


def test_the_old_content_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("new")
        seen = (tmp_path / "file").read_text()

    assert (seen, (tmp_path / "file").read_text()) == ("old", "new")


def test_a_failing_replacement_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError("disk full")

    write_text(tmp_path / "file", "old")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_text(tmp_path / "file", "new")

    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


@pytest.mark.usefixtures("umask")
def test_the_umask_is_respected(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "x")

    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


@pytest.mark.usefixtures("umask")
def test_the_umask_is_left_as_it_was(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "x")
    found = os.umask(0o027)

    assert found == 0o027


def test_a_sweep_removes_what_a_killed_writer_of_a_file_left(tmp_path: Path) -> None:
    dead = f"{files._HOST}_{2**22 + 1}-x1.part"  # no process has that number
    for name in (f".r.json.{dead}", f".other.json.{dead}", "r.json"):
        (tmp_path / name).touch()
    sweep(tmp_path / "r.json")

    assert sorted(path.name for path in tmp_path.iterdir()) == [f".other.json.{dead}", "r.json"]


def test_a_file_is_on_the_disk_before_it_takes_its_place_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, kept = tmp_path / "a.json", list[tuple[int, bool]]()
    monkeypatch.setattr(os, "fsync", lambda fd: kept.append((os.fstat(fd).st_ino, path.exists())))

    write_text(path, "{}")

    assert kept == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]
