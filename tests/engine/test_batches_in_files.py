"""Batches of a run come from files of unknown origin; invalid ones are computed again."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy

import satbench
from satbench.engine.journal import RunStore
from satbench.engine.runner import BatchResult
from satbench.records import stored_arrays
from satbench.records.record import Record

SHAPE = (8, 1, 2, 2)
BATCH = BatchResult(
    1,
    np.array([2, 5, 7]),
    np.array([True, False, False]),
    np.full((1, 1, 2, 2), 0.5, np.float32),
    *(30, 20, 0.25, 1, 2),
    margins=np.array([-1, 0.5, np.inf], np.float32),
    points=np.full((2, 1, 2, 2), 0.25, np.float32),
    search="folded",
)
Change = Callable[[dict[str, Any]], object]


def stored(folder: Path, values: dict[str, Any]) -> RunStore:
    """Return a journal with one batch of these values."""
    store = RunStore(folder, "0" * 64, SHAPE)
    store.folder.mkdir(parents=True)
    with (store.folder / "001-000000002.npz").open("wb") as file:
        np.savez(file, **values)
    return store


def test_a_batch_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = RunStore(tmp_path, "0" * 64, SHAPE)
    store.folder.mkdir(parents=True)
    store.write(BATCH)

    (found,) = store.finished()
    assert {name: np.asarray(one).tolist() for name, one in vars(found).items()} == {
        name: np.asarray(one).tolist() for name, one in vars(BATCH).items()
    }


ODD: dict[str, dict[str, Any]] = {
    "an image beyond the last": {"indices": np.array([2, 5, 8])},
    "an image before the first": {"indices": np.array([2, 5, -1])},
    "an image twice": {"indices": np.array([2, 5, 5])},
    "a place that is a decimal": {"indices": np.array([2.0, 5.0, 7.0])},
    "places in a square": {"indices": np.array([[2, 5, 7]])},
    "one place that is no list": {"indices": np.int64(0)},
    "a verdict too few": {"broken": np.array([True, False])},
    "verdicts in words": {"broken": np.array(["a", "b", "c"])},
    "a break without a witness": {"broken": np.array([True, True, False])},
    "a witness of another shape": {"witnesses": np.zeros((1, 1, 2, 3), np.float32)},
    "a complex witness": {"witnesses": np.zeros((1, 1, 2, 2), np.complex64)},
    "margins in words": {"margins": np.array(["a", "b", "c"])},
    "a margin that is no number": {"margins": np.full(3, np.nan, np.float32)},
    "a margin too few": {"margins": np.zeros(2, np.float32)},
    "points without margins": {"margins": np.empty(0, np.float32)},
    "a point too many": {"points": np.zeros((3, 1, 2, 2), np.float32)},
    "fewer passes than none": {"forwards": -1},
    "more passes than a machine makes": {"source_backwards": 2**62},
    "a time that is no number": {"seconds": float("nan")},
    "a time without an end": {"seconds": float("inf")},
    "a stage before the first": {"stage": -1},
    "a search that is not known": {"search": "\x1b[31m"},
    "objects": {"search": np.array([{}], object)},
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_a_batch_that_does_not_belong_to_the_run_is_removed(
    change: dict[str, Any], tmp_path: Path
) -> None:
    store = stored(tmp_path, {**vars(BATCH), **change})

    assert list(store.finished()) == []
    assert not list(store.folder.iterdir())


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_batch_that_declares_more_than_it_holds_is_not_unpacked(
    packed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_arrays, "_values", lambda *_: pytest.fail("unpacked"))
    large = (10**9 if packed == zipfile.ZIP_STORED else 8,)
    head = {"descr": "|u1", "fortran_order": False, "shape": large}
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", packed) as archive,
        archive.open("witnesses.npy", "w") as member,
    ):
        npy.write_array_header_1_0(member, head)
        member.write(bytes(8))

    with pytest.raises(ValueError, match="as it was written"):
        stored_arrays.read_arrays(tmp_path / "a.npz")


def test_batches_of_unknown_stages_do_not_change_the_verdicts(tmp_path: Path) -> None:
    def evaluate(out: Path) -> Record:
        return satbench.evaluate(
            "fmnist-sat-tiny-relu-s0", attacks="pgd-1", n_examples=4, eps="0.1", out=out
        )

    whole = evaluate(tmp_path / "whole")
    folder = tmp_path / "out" / ".runs" / whole.identity[:16]
    folder.mkdir(parents=True)
    beyond = {"indices": np.arange(3), "witnesses": np.zeros((1, 1, 28, 28), np.float32)}
    values = {**vars(BATCH), **beyond, "points": np.empty(0, np.float32)}
    for stage in (0, 2):  # a clean pass has no witnesses
        with (folder / f"{stage:03d}-000000000.npz").open("wb") as file:
            np.savez(file, **{**values, "stage": stage})

    assert evaluate(tmp_path / "out").verdicts == whole.verdicts
