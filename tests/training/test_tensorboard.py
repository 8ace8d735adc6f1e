"""Metrics for TensorBoard."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from satbench.training.saved.tensorboard import write_events
from satbench.training.watch import EpochMetrics

FIRST = EpochMetrics(1, 1.25, 0.5, 0.75, 0.5, 0.125, 1234.0, held_out_attack=0.75)


def test_each_metric_of_an_epoch_becomes_a_tensorboard_curve(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for metrics in (FIRST, replace(FIRST, epoch=2, loss=0.25, warning="it fell")):
        write_events(tmp_path, metrics)
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(tmp_path.iterdir()):
        read = EventAccumulator(str(file)).Reload()
        for name in read.Tags()["scalars"]:
            found.setdefault(name, []).extend((e.step, e.value) for e in read.Scalars(name))
    numbers = {k: v for k, v in asdict(FIRST).items() if k not in ("epoch", "warning", "checks")}

    assert found == {
        name: [(1, value), (2, 0.25 if name == "loss" else value)]
        for name, value in numbers.items()
    }


def test_a_full_disk_raises_in_the_calling_thread_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")

    def full(self: Path, data: bytes) -> int:
        raise OSError("full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="full"):
        write_events(tmp_path, FIRST)

    assert list(tmp_path.iterdir()) == []


def test_without_tensorboard_no_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satbench.training.saved.tensorboard.find_spec", lambda name: None)
    write_events(tmp_path, FIRST)

    assert list(tmp_path.iterdir()) == []
