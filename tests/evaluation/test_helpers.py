"""The helper processes of a command: their default number, cores, devices, and start."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from satbench.core.errors import SatbenchError
from satbench.engine.claims import ConcludedElsewhere, Leading
from satbench.engine.journal import RunStore
from satbench.evaluation import workers
from satbench.evaluation.api import evaluate_config
from satbench.evaluation.cluster.tasks import Task, changed, configs_of, default_count
from satbench.evaluation.config import EvalConfig, eval_config
from satbench.evaluation.workers import Workers, cores, helped
from satbench.records.record import ModelInfo
from satbench.transfer.config import transfer_config

RELU, SILU = "fmnist-sat-tiny-relu-s0", "fmnist-sat-tiny-silu-s0"
INFO = ModelInfo("net", "python", "", "", 1, "0" * 64, {})
Started = list[tuple[list[Task], list[int]]]


class Ended:
    """A helper that has ended."""

    stdin = None

    def wait(self, patience: float) -> int:
        return 0


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """The arguments of started helpers, on a machine of four cores; no helper really starts."""
    told: Started = []

    def note(tasks: Sequence[Task], places: Sequence[int]) -> Ended:
        told.append((list(tasks), list(places)))
        return Ended()

    monkeypatch.setattr(workers, "_start", note)
    monkeypatch.setattr(workers, "cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(workers, "LATE", 0.02)
    return told


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The cores that this process was pinned to."""
    told: list[list[int]] = []
    monkeypatch.setattr(workers, "_pin", lambda thread, places: told.append(list(places)))
    return told


def config(name: str = RELU, **given: Any) -> EvalConfig:
    return eval_config(name, **{"device": "cpu", "attacks": ["pgd-2"], **given})


def tasks_of(*configs: EvalConfig) -> list[Task]:
    return [(evaluate_config, (one,)) for one in configs]


@pytest.mark.parametrize(
    ("configs", "cores", "count"),
    [
        ([config()], 2, 2),  # 1,000 images, 250 at once: 4 units
        ([config()], 64, 2),
        ([config(n_examples=750)], 2, 1),
        ([config(n_examples=500)] * 8, 64, 8),
        ([config(n_examples=500)] * 8, 4, 4),
        ([config(n_examples=100, batch_size=10)], 64, 5),
        ([config()], 1, 1),
        ([config(device="cuda")], 2, 1),
        ([config(until="2%")], 2, 1),
        ([config(fresh=True)], 2, 1),
    ],
)
def test_by_default_each_process_has_at_least_two_units_of_a_stage(
    configs: list[EvalConfig], cores: int, count: int
) -> None:
    assert count == default_count(configs, cores)


def test_the_configs_inside_tasks_are_found_and_changed() -> None:
    matrix = transfer_config([RELU, SILU], [SILU], device="cpu")
    given = [(print, ([config(), config(SILU)], ())), (print, (matrix,))]

    assert [RELU, SILU, SILU, SILU] == [one.model.text for one in configs_of(given)]
    assert {"cpu"} == {one.device for one in configs_of(given)}
    assert {"cuda:1"} == {one.device for one in configs_of(changed(given, device="cuda:1"))}
    assert [print, print] == [function for function, _ in changed(given, device="cuda:1")]


def test_cores_and_threads_are_shared_with_helpers_and_restored(
    started: Started, pinned: list[list[int]]
) -> None:
    torch.set_num_threads(4)
    first, last = config(), config(SILU)
    with helped(tasks_of(first, last), Workers(2)) as shared:
        threads = torch.get_num_threads()

    assert shared is True
    assert threads == 2
    assert torch.get_num_threads() == 4
    assert started == [(tasks_of(last, first), [2, 3])]
    assert pinned == [[0, 1], [0, 1, 2, 3]]


def test_a_process_with_a_helper_is_pinned_to_half_of_its_cores() -> None:
    before = cores()
    with helped([], Workers(2)):
        within = sorted(os.sched_getaffinity(0))

    assert within == before[: max(1, len(before) // 2)]
    assert cores() == before


def test_default_helpers_start_only_after_some_time(
    started: Started, pinned: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_more_that_fit", lambda: 9)
    with helped(tasks_of(config(n_examples=2000)), Workers(None)) as shared:
        at_once = len(started)
        wait(lambda: len(started) == 3)

    assert isinstance(shared, Leading)
    assert at_once == 0
    assert [[1], [2], [3]] == [places for _, places in started]


def test_a_short_command_starts_no_helper(started: Started, pinned: list[list[int]]) -> None:
    with helped(tasks_of(config()), Workers(None)):
        pass
    time.sleep(0.06)

    assert started == []


def test_no_more_helpers_start_than_fit_into_memory(
    started: Started, pinned: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_more_that_fit", lambda: 1)
    with helped(tasks_of(config(n_examples=2000)), Workers(None)):
        wait(lambda: bool(started))
        time.sleep(0.02)

    assert len(started) == 1
    assert workers._more_that_fit() == 1


def test_the_number_of_processes_that_fit_follows_from_free_memory() -> None:
    lines = Path("/proc/meminfo").read_text().splitlines()
    (free,) = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]

    assert 0 <= workers._more_that_fit() < free / 50_000  # torch takes more than 50 MB


def test_each_gpu_gets_one_process(
    started: Started, pinned: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with helped(tasks_of(config(device="cuda:all")), Workers(None)) as shared:
        pass

    assert shared is True
    devices = [[one.device for one in configs_of(tasks)] for tasks, _ in started]
    assert [["cuda:1"], ["cuda:2"]] == devices


@pytest.mark.parametrize(
    ("given", "again"),
    [
        (Workers(0), False),
        (Workers(4097), False),
        (Workers(2), True),
        (Workers(1, "ray"), True),
        (Workers(1, "local", "head:6379"), False),
    ],
)
def test_invalid_workers_are_refused(given: Workers, again: bool) -> None:
    with pytest.raises(SatbenchError):
        given.checked(again)


def test_a_run_that_starts_again_has_no_helpers() -> None:
    assert Workers(1) == Workers(None).checked(again=True)


def test_a_leading_process_excludes_other_processes_but_not_its_helpers(tmp_path: Path) -> None:
    leader, other, helper = (RunStore(tmp_path, "0" * 64, (0,)) for _ in range(3))
    with leader.claimed(Leading()):
        with (
            pytest.raises(SatbenchError, match="is running the same evaluation"),
            other.claimed(),
        ):
            pass
        with (
            pytest.raises(SatbenchError, match="is running the same evaluation"),
            other.claimed(Leading()),
        ):
            pass
        with helper.claimed(True), leader.concluding(Leading()):
            pass
    with other.claimed():
        pass


@pytest.mark.parametrize(
    "do",
    [
        lambda store: store.agreed("way", 1),
        lambda store: store.within("part"),
        lambda store: store.begin(INFO, fresh=True),
    ],
    ids=["agreed", "within", "begin"],
)
def test_a_helper_looks_for_the_record_if_another_process_ended_its_run(
    do: Callable[[RunStore], object], tmp_path: Path
) -> None:
    helper, alone = (RunStore(tmp_path, "0" * 64, (0,)) for _ in range(2))
    with helper.claimed(True):
        helper.remove()
        with pytest.raises(ConcludedElsewhere):
            do(helper)
    with alone.claimed():
        alone.remove()
        with pytest.raises(FileNotFoundError):
            do(alone)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
