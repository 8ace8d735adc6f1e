"""Workers of a study: one process per device, reported failures, and no process left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from satbench.core.errors import SatbenchError
from satbench.studies import Study
from satbench.studies.attempts import Attempts
from satbench.studies.crew import parse_workers, share_out
from satbench.studies.design import Arm, Pair
from satbench.studies.images import DatasetCache
from satbench.studies.plan import StudyOptions, plan_study
from satbench.studies.runner import Machine, Runner
from satbench.studies.store import Places


def _saved(path: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 40)
    images = rng.integers(0, 86, (40, 1, 8, 8)) + 80 * labels.reshape(-1, 1, 1, 1)
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path


@pytest.fixture
def own_study(made_study: Study, tmp_path: Path) -> Study:
    """Return the made-up study on images in files, which another process finds too."""
    base = {**made_study.base, "dataset": f"arrays:{_saved(tmp_path / 'train.npz', 0)}"}
    return replace(made_study, base=base, seeds=1)


def _runner(study: Study, folder: Path) -> Runner:
    test = f"arrays:{_saved(folder / 'test.npz', 1)}"
    plan = plan_study(study, StudyOptions(n_examples=12, evaluate_on=test), DatasetCache())
    places = Places(folder / "store", folder / "results")
    return Runner(plan, places, DatasetCache(), Machine("cpu", 1))


@pytest.mark.parametrize(
    ("text", "devices"), [("1", ("cpu",)), ("3", ("cpu",) * 3), (" 2 ", ("cpu",) * 2)]
)
def test_a_number_of_workers_means_processes_on_the_cpu(
    text: str, devices: tuple[str, ...]
) -> None:
    assert devices == parse_workers(text)


def test_cuda_workers_are_one_process_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)

    assert ("cuda:0", "cuda:1", "cuda:2") == parse_workers("cuda:all")
    assert ("cuda:2", "cuda:0") == parse_workers("cuda:2,cuda:0")
    with pytest.raises(SatbenchError, match="it has 3 GPUs"):
        parse_workers("cuda:3")


@pytest.mark.parametrize("text", ["0", "", "-1", "all", "cuda", "mps", "cuda:x", "2,3", "cuda:all"])
def test_invalid_workers_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(SatbenchError):
        parse_workers(text)


@pytest.mark.slow
def test_workers_share_the_runs_and_a_failed_run_is_reported(
    own_study: Study, tmp_path: Path
) -> None:
    bad = Arm("bad", {"activation": "elu", "init": str(tmp_path / "missing.safetensors")})
    study = replace(own_study, arms=(bad, *own_study.arms), contrasts=(Pair("SILU", "ReLU"),))
    runner = _runner(study, tmp_path)
    said: list[str] = []
    warned: list[str] = []
    with pytest.raises(SatbenchError, match=r"1 of 3 runs failed: bad, seed 0;"):
        share_out(runner, "all", ("cpu", "cpu"), said.append, warned.append)

    assert {"ReLU, seed 0", "SILU, seed 0"} == {
        cell.label for cell in runner.plan.cells if runner.is_complete(cell)
    }
    assert 1 == len([line for line in warned if "bad, seed 0 failed: " in line])
    assert {"[worker 1]", "[worker 2]"} == {line[:10] for line in (*said, *warned)}


def test_a_finished_study_starts_no_worker(
    own_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = _runner(own_study, tmp_path)
    monkeypatch.setattr(Runner, "is_complete", lambda *_: True)
    monkeypatch.setattr("satbench.studies.crew._start", None)

    share_out(runner, "all", ("cpu",), print, print)


def test_a_run_is_given_up_after_two_workers_died_in_it(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path, print)
    for spent in (False, False, True):
        assert spent == attempts.spent("key")
        if not spent:
            with pytest.raises(MemoryError), attempts.made("key", "run"):
                raise MemoryError


def test_a_failed_run_is_reported_and_not_tried_again(tmp_path: Path) -> None:
    said: list[str] = []
    attempts = Attempts(tmp_path, said.append)
    with attempts.made("well", "one"):
        pass
    with attempts.made("badly", "other"):
        raise SatbenchError("no")

    assert (False, True) == (attempts.spent("well"), attempts.spent("badly"))
    assert ["other failed: no"] == said


@pytest.mark.slow
@pytest.mark.parametrize("ended", [signal.SIGTERM, signal.SIGKILL])
def test_a_dead_worker_is_reported_and_the_others_continue(
    ended: signal.Signals, own_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from satbench.studies import crew

    started: list[subprocess.Popen[bytes]] = []
    real = crew._start

    def start() -> subprocess.Popen[bytes]:
        process = real()
        if not started:
            process.send_signal(ended)
        started.append(process)
        return process

    monkeypatch.setattr(crew, "_start", start)
    runner, warned = _runner(own_study, tmp_path), list[str]()
    share_out(runner, "train", ("cpu", "cpu"), lambda _: None, warned.append)

    assert [
        f"[worker 1] this worker was ended by signal {ended.value}; the others take over its runs"
    ] == warned
    assert not any(runner.is_open(cell, "train") for cell in runner.plan.cells)


@pytest.mark.slow
def test_ctrl_c_ends_all_workers_and_releases_their_runs(
    own_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from satbench.studies import crew

    started: list[subprocess.Popen[bytes]] = []
    real = crew._start
    monkeypatch.setattr(crew, "_start", lambda: started.append(real()) or started[-1])
    long = replace(own_study, base={**own_study.base, "epochs": 5000})
    said: list[str] = []

    def say(line: str) -> None:
        if "epoch" in line and not said:
            said.append(line)
            os.kill(os.getpid(), signal.SIGINT)

    runner = _runner(long, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        share_out(runner, "all", ("cpu", "cpu"), say, print)

    assert said
    assert [True, True] == [process.poll() is not None for process in started]
    assert not any(thread.name.endswith("(_follow)") for thread in threading.enumerate())
    with runner.places.claimed(runner.plan.cells[0].key) as mine:
        assert mine


@pytest.mark.slow
def test_a_worker_stops_when_its_command_has_ended(own_study: Study, tmp_path: Path) -> None:
    code = "import pickle, sys, subprocess;from satbench.studies.worker import main; main()"
    from satbench.studies.worker import STOPPED, Job

    runner = _runner(replace(own_study, base={**own_study.base, "epochs": 5000}), tmp_path)
    (tmp_path / "attempts").mkdir()
    job = Job(runner.plan, runner.places, "train", None, "cpu", 1, False, 1, tmp_path / "attempts")
    import pickle

    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stderr
        pickle.dump(job, process.stdin)
        process.stdin.flush()
        while b"epoch" not in process.stderr.readline():
            time.sleep(0.01)
        process.stdin.close()
        process.stdin = None

        assert STOPPED == process.wait(20)
