"""The energy counters of a machine, and its measured batch sizes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import satbench
from satbench.data import Dataset
from satbench.engine.machine import best_batch, energy
from satbench.engine.machine.best_batch import best_batch_size, best_of
from satbench.engine.machine.energy import Counter, Meter, meter_of
from satbench.models import LoadedModel


def test_an_energy_counter_that_wraps_around_is_continued() -> None:
    shown = iter([90.0, 5.0])
    meter = Meter((Counter(lambda: next(shown), span=100.0),))

    assert meter.since(meter.read()) == 15.0


def test_a_machine_without_counters_has_no_joules() -> None:
    assert math.isnan(Meter(()).since([]))


def test_only_packages_are_counted_and_not_their_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for zone, joules in (("intel-rapl:0", 3), ("intel-rapl:1", 4), ("intel-rapl:0:0", 100)):
        folder = tmp_path / zone
        folder.mkdir()
        (folder / "energy_uj").write_text(f"{joules * 10**6}\n")
        (folder / "max_energy_range_uj").write_text(f"{10**9}\n")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    meter = meter_of(torch.device("cpu"))

    assert meter.read() == [3.0, 4.0]
    (tmp_path / "intel-rapl:0/energy_uj").write_text("9000000\n")
    assert meter.since([3.0, 4.0]) == 6.0


def test_a_record_has_joules_if_the_machine_reports_them(
    shipped: LoadedModel, fashion: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = iter([10.0, 52.25])
    meter = Meter((Counter(lambda: next(shown)),))
    monkeypatch.setattr("satbench.evaluation.run.meter_of", lambda device: meter)
    x, y = fashion.pixels(torch.arange(4).numpy()), fashion.labels[:4]
    record = satbench.evaluate(shipped.module, x, y, attacks="pgd-1", eps="0.1", out=None)

    assert record.environment.joules == 42.2


def test_a_larger_batch_must_be_faster_to_be_chosen() -> None:
    assert best_of(iter([(8, 1.0), (16, 1.0), (32, 1.0), (64, 2.0), (128, 4.0)])) == 32
    assert best_of(iter([(8, 1.0), (16, 2.1), (32, 4.0), (64, 0.1)])) == 8  # two in a row
    assert best_of(iter([(8, 9.0), (16, 9.0)])) == 8  # the first step already takes too long
    assert best_of(iter([])) == 1


class Refuses(nn.Module):
    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.asked = most, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        if len(x) > self.most:
            raise torch.OutOfMemoryError
        return x.flatten(1)[:, :3]


def test_a_measured_batch_size_is_remembered_and_fits_into_memory(tmp_path: Path) -> None:
    net, path = Refuses(20).eval(), tmp_path / "sizes.json"
    first = best_batch_size(net, torch.rand(5, 1, 2, 2), "net", path=path)
    asked = net.asked
    second = best_batch_size(net, torch.rand(5, 1, 2, 2), "net", path=path)
    other = best_batch_size(net, torch.rand(5, 1, 3, 3), "net", path=path)

    assert 1 <= first.size <= 20
    assert (second.size, second.remembered, first.remembered) == (first.size, True, False)
    assert asked < net.asked  # nothing was known of another shape
    assert not other.remembered
    assert sorted(json.loads(path.read_text()).values()) == sorted([first.size, other.size])


def test_a_corrupt_cache_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "sizes.json"
    for text in ("{", "[]", '{"a": "b"}'):
        path.write_text(text)
        assert not best_batch_size(
            Refuses(9).eval(), torch.rand(5, 1, 2, 2), "n", path=path
        ).remembered


@pytest.mark.slow
def test_batch_size_auto_gives_the_same_verdicts(
    shipped: LoadedModel, fashion: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(best_batch, "cache_folder", lambda: tmp_path)
    x, y = fashion.pixels(torch.arange(12).numpy()), fashion.labels[:12]
    given = {"attacks": "pgd-3", "eps": "0.1", "out": None}
    plain = satbench.evaluate(shipped.module, x, y, **given)  # type: ignore[arg-type]
    auto = satbench.evaluate(shipped.module, x, y, batch_size="auto", **given)  # type: ignore[arg-type]

    assert auto.verdicts == plain.verdicts
    (size,) = json.loads((tmp_path / "batch_sizes.json").read_text()).values()
    assert auto.environment.batch_size == size
