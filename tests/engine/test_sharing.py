"""Several processes in one run: they divide the units and give the result of one process."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from in_memory import Journal, Quiet
from torch import nn

from satbench.attacks.suites.suite import parse_suite
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.claims import STALE, Claims
from satbench.engine.runner import BatchResult, Context
from satbench.engine.suite_run import run_suite

LINF = Threat.parse("linf:0.1")
MEANS = [0.1, 0.35, 0.42, 0.55, 0.58, 0.8, 0.45, 0.61, 0.3, 0.9]
LABELS = [0, 0, 0, 1, 1, 1, 0, 1, 0, 1]
SUITE = parse_suite(["pgd-2", "square(queries=20)", "cosine-pgd(steps=3)"])


class OfTwo(Journal):
    """A journal of two processes: batches of the other appear when this one asks for news."""

    def __init__(self, whole: list[BatchResult], ours: Callable[[str], bool]) -> None:
        super().__init__()
        self.ours = ours
        self.coming = [result for result in whole if not ours(unit_of(result))]

    def news(self) -> list[BatchResult]:
        come, self.coming = self.coming[:1], self.coming[1:]
        return come

    @contextmanager
    def held(self, name: str) -> Iterator[bool]:
        yield self.ours(name)

    def holder(self, name: str) -> str:
        return "process 4711"


def unit_of(result: BatchResult) -> str:
    return f"{result.stage:03d}-{int(result.indices[0]):09d}"


@pytest.mark.parametrize("share", [0, 1, 2])
def test_units_of_other_processes_are_used_and_not_run_again(
    share: int, mean_model: nn.Module, grey_images: Callable[..., Dataset]
) -> None:
    images = grey_images(MEANS, LABELS)
    alone = Journal()
    verdicts = run_suite(mean_model, SUITE, Context(images, LINF, alone, Quiet(), batch_size=2))
    units = sorted(map(unit_of, alone))
    mine = set(units[share::3])
    both = OfTwo(alone, mine.__contains__)

    shared = run_suite(
        mean_model, SUITE, Context(images, LINF, both, Quiet(), batch_size=2, sharing=both)
    )

    assert verdicts.tolist() == shared.tolist()
    assert sorted(map(unit_of, both)) == sorted(mine)
    assert both.coming == []
    for one in both:
        (same,) = (other for other in alone if unit_of(other) == unit_of(one))
        np.testing.assert_array_equal(one.witnesses, same.witnesses)


def test_a_stage_with_smaller_units_is_written_in_these_units(
    mean_model: nn.Module, grey_images: Callable[..., Dataset]
) -> None:
    images, plain, small = grey_images(MEANS, LABELS), Journal(), Journal()
    verdicts = run_suite(mean_model, SUITE, Context(images, LINF, plain, Quiet(), batch_size=5))
    context = Context(images, LINF, small, Quiet(), batch_size=5, units=[5, 2])

    assert run_suite(mean_model, SUITE, context).tolist() == verdicts.tolist()
    assert max(len(result.indices) for result in small.of_stage(1)) == 2
    assert [len(one.indices) for one in small.of_stage(0)] == [5, 5]
    assert [len(a.indices) for a in small.of_stage(3)] == [
        len(b.indices) for b in plain.of_stage(3)
    ]


class Notes(Quiet):
    """Progress that records messages for the user."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.passes = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def passed(self, passes: int) -> None:
        self.passes += passes


def test_a_long_wait_for_another_process_is_reported_once_per_stage(
    mean_model: nn.Module, grey_images: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satbench.engine.runner._NAP", 0.0)
    images = grey_images(MEANS, LABELS)
    alone, told = Journal(), Notes()
    run_suite(mean_model, SUITE[:1], Context(images, LINF, alone, Quiet(), batch_size=2))
    both = OfTwo(alone, lambda name: not name.startswith("001-00000000"))
    theirs, both.coming = both.coming, []
    looks = iter([[]] * 300 + [theirs])
    monkeypatch.setattr(both, "news", lambda: next(looks, []))

    run_suite(mean_model, SUITE[:1], Context(images, LINF, both, told, batch_size=2, sharing=both))

    (note,) = told.notes
    assert "process 4711" in note
    assert "pgd-2" in note


def test_a_unit_has_one_claim_at_a_time(tmp_path: Path) -> None:
    one, other = Claims(tmp_path), Claims(tmp_path)
    with one.held("unit") as mine, other.held("unit") as theirs, other.held("another") as free:
        held = (mine, theirs, free)
    with other.held("unit") as again:
        held += (again,)

        held += (one.holder("unit") == f"process {os.getpid()}", one.holder("another") == "")

    assert held == (True, False, True, True, True, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("host", "pid", "age", "taken"),
    [
        (socket.gethostname(), 2**22 + 1, 0.0, True),  # no process has this number
        (socket.gethostname(), os.getpid(), 2 * STALE, False),  # slow but alive
        ("elsewhere", 1, 0.0, False),
        ("elsewhere", 1, STALE + 5, True),
    ],
    ids=["gone", "slow", "elsewhere", "elsewhere and silent"],
)
def test_the_claim_of_a_dead_process_is_taken_over(
    host: str, pid: int, age: float, taken: bool, tmp_path: Path
) -> None:
    claim = tmp_path / "unit.claim"
    claim.write_text(f"{host} {pid}")
    os.utime(claim, (time.time() - age,) * 2)

    with Claims(tmp_path).held("unit") as mine:
        assert mine is taken
    assert claim.exists() is not taken
    assert torch.get_num_threads() == 1
