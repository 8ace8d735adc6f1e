"""A stopped evaluation is resumed and ends with the same record."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from satbench.core.errors import SatbenchError
from satbench.core.progress.receiver import NoProgress
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.journal import RunStore
from satbench.evaluation.run import Evaluation, Finished, run_evaluation
from satbench.models import LoadedModel, load_model, request_model
from satbench.records.record import Record, read_record
from satbench.records.witnesses import witnesses_path

pytestmark = pytest.mark.sampled(3)

CPU = torch.device("cpu")
ATTACKS = ("pgd-5", "square(queries=20,block=15)")


@dataclass
class StopsAfter(NoProgress):
    """Progress that raises KeyboardInterrupt after a number of written batches."""

    batches: int

    def advance(self, images: int, survivors: int) -> None:
        self.batches -= 1
        if self.batches == 0:
            raise KeyboardInterrupt


Evaluate = Callable[..., Finished]


@pytest.fixture
def evaluate(shipped: LoadedModel, fashion: Dataset) -> Evaluate:
    """Return a function that evaluates the shipped model into a folder."""

    def run(out: Path, batch_size: int = 10, stop_after: int = -1) -> Finished:
        evaluation = Evaluation(
            fashion.first(40), Threat.parse("linf:0.1"), ATTACKS, batch_size=batch_size
        )
        progress = StopsAfter(stop_after)
        return run_evaluation(shipped.module, shipped.info, evaluation, CPU, out, progress)

    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, fashion: Dataset) -> Finished:
    """Return the uninterrupted evaluation."""
    model = load_model(request_model("fmnist-sat-tiny-relu-s0"), 10)
    evaluation = Evaluation(fashion.first(40), Threat.parse("linf:0.1"), ATTACKS, batch_size=10)
    out = tmp_path_factory.mktemp("whole")
    return run_evaluation(model.module, model.info, evaluation, CPU, out)


def timeless(record: Record, like: Record) -> str:
    """Return a record's JSON with the environment of another one."""
    return replace(record, environment=like.environment).to_json()


def leftovers(out: Path) -> list[str]:
    """Return the other contents of a folder than records and witnesses."""
    files = (path for path in out.rglob("*") if path.is_file())
    return [p.name for p in files if not p.name.endswith((".json", ".witnesses.npz"))]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("stop", [1, 2, 4, 5, 7, 8, 9, 10, 11])
def test_a_stopped_evaluation_ends_with_the_same_record(
    stop: int, evaluate: Evaluate, whole: Finished, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, stop_after=stop)
    assert list(tmp_path.glob("*.json")) == []

    done = evaluate(tmp_path)

    assert done.path.name == whole.path.name
    assert timeless(done.record, whole.record) == whole.record.to_json()
    assert witnesses_path(done.path).read_bytes() == witnesses_path(whole.path).read_bytes()
    assert leftovers(tmp_path) == []


def test_an_evaluation_stopped_after_every_batch_ends_with_the_same_record(
    evaluate: Evaluate, whole: Finished, tmp_path: Path
) -> None:
    stops, done = 0, None
    while done is None:
        try:
            done = evaluate(tmp_path, stop_after=1)
        except KeyboardInterrupt:
            stops += 1

    assert stops == len(whole_batches(whole))
    assert timeless(done.record, whole.record) == whole.record.to_json()


def whole_batches(whole: Finished) -> list[int]:
    """Return the batches of the evaluation above: 4 clean ones, and those of each stage."""
    blocks = {i // 15 for i, verdict in enumerate(whole.record.verdicts) if verdict in (-1, 2)}
    return [0] * 4 + [1] * -(-whole.record.stages[0].attacked // 10) + [2] * len(blocks)


def test_the_record_on_disk_equals_the_returned_one(whole: Finished) -> None:
    assert read_record(whole.path) == whole.record


def test_a_stopped_evaluation_gives_the_same_verdicts_with_another_batch_size(
    evaluate: Evaluate, whole: Finished, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, stop_after=6)

    done = evaluate(tmp_path, batch_size=7)

    assert done.record.verdicts == whole.record.verdicts
    assert [(s.attacked, s.broken) for s in done.record.stages] == [
        (s.attacked, s.broken) for s in whole.record.stages
    ]


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "corrupt",
    [
        lambda data: b"",
        lambda data: b"not a zip file at all",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data[:200] + bytes([data[200] ^ 0xFF]) + data[201:],
        lambda data: bytes(len(data)),
    ],
    ids=["empty", "text", "half", "last byte missing", "one byte turned", "zeros"],
)
def test_a_corrupt_batch_is_run_again(
    corrupt: Callable[[bytes], bytes], evaluate: Evaluate, whole: Finished, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, stop_after=7)
    for batch in sorted(tmp_path.rglob("*.npz"))[::3]:
        batch.write_bytes(corrupt(batch.read_bytes()))

    assert timeless(evaluate(tmp_path).record, whole.record) == whole.record.to_json()


def test_a_half_written_batch_is_ignored(
    evaluate: Evaluate, whole: Finished, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, stop_after=3)
    first = min(tmp_path.rglob("*.npz"))
    (first.parent / f".{first.name}.abc.part").write_bytes(first.read_bytes()[:100])

    assert timeless(evaluate(tmp_path).record, whole.record) == whole.record.to_json()
    assert leftovers(tmp_path) == []


def test_a_second_process_for_the_same_evaluation_is_refused_in_one_sentence(
    evaluate: Evaluate, whole: Finished, tmp_path: Path
) -> None:
    store = RunStore(tmp_path, whole.record.identity, (40, 1, 28, 28))
    with (
        store.claimed(),
        pytest.raises(
            SatbenchError,
            match=rf"^process {os.getpid()} is running the same evaluation \(.*\); wait for it",
        ),
    ):
        evaluate(tmp_path)


def test_a_claim_ends_when_its_holder_stops(tmp_path: Path) -> None:
    store = RunStore(tmp_path, "0" * 64, (0,))
    with pytest.raises(KeyboardInterrupt), store.claimed():
        raise KeyboardInterrupt

    with store.claimed():
        pass


COMMAND = (
    *(sys.executable, "-m", "satbench", "eval", "--model", "fmnist-sat-tiny-relu-s0"),
    *("--attack", "pgd-20", "--attack", "square(queries=200,block=50)"),
    *("--n-examples", "200", "--batch-size", "20", "--device", "cpu", "--quiet"),
)


def start(out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        (*COMMAND, "--out", str(out)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, said = process.communicate(timeout=600)
    return process.returncode, said.decode()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not condition() and process.poll() is None:
        time.sleep(0.01)


@pytest.mark.slow
def test_an_evaluation_killed_ten_times_ends_with_the_same_record(tmp_path: Path) -> None:
    assert finish(start(tmp_path / "whole")) == (0, "")
    (path,) = (tmp_path / "whole").glob("*.json")
    rng, killed, amid = random.Random(0), 0, 0
    out = tmp_path / "killed"
    while killed < 10:
        process = start(out)
        if killed % 3:  # otherwise it is killed while it starts
            seen = len(list(out.rglob("*.npz")))
            wait_for(lambda seen=seen: len(list(out.rglob("*.npz"))) > seen, process)
        time.sleep(rng.random() * (0.3 if killed % 3 else 3))
        process.send_signal(signal.SIGKILL)
        code, _ = finish(process)
        if code == 0:
            break
        killed += 1
        amid += bool(list(out.rglob("*.npz")))
    assert finish(start(out)) == (0, "")

    (again,) = out.glob("*.json")
    whole, record = read_record(path), read_record(again)
    assert again.name == path.name
    assert timeless(record, whole) == path.read_text()
    assert witnesses_path(again).read_bytes() == witnesses_path(path).read_bytes()
    assert leftovers(out) == []
    assert amid >= 3


@pytest.mark.slow
def test_a_second_command_for_the_same_evaluation_is_refused(tmp_path: Path) -> None:
    first = start(tmp_path)
    wait_for(lambda: any(path.read_text() for path in tmp_path.rglob("lock")), first)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        code, said = finish(start(tmp_path))
    finally:
        os.kill(first.pid, signal.SIGCONT)

    assert (code, len(said.splitlines())) == (2, 1)
    assert said.startswith(f"satbench: process {first.pid} is running the same evaluation")
    assert finish(first) == (0, "")
