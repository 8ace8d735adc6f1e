"""Faults in a training command give one sentence, lose no results, and say how to continue."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.core.lock import lock_or_refuse
from satbench.model_zoo.card import read_card
from satbench.model_zoo.checkpoints import read_state

NAME = "run"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    save(noisy(40))


def noisy(n: int, size: int = 8, noise: float = 0.05, seed: int = 0) -> dict[str, np.ndarray]:
    """Return noisy images of three patterns, and their classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    patterns = 0.5 + 0.15 * (2 * np.random.default_rng(1).random((3, 1, size, size)) - 1)
    x = np.clip(patterns[labels] + noise * rng.standard_normal((n, 1, size, size)), 0, 1)
    return {"x": x.astype(np.float32), "y": labels}


def save(arrays: dict[str, np.ndarray]) -> None:
    np.savez("train.npz", **arrays)  # type: ignore[arg-type]


def train(*changes: str, epochs: int = 2, name: str = NAME) -> Result:
    words = ("train", "--recipe", "fmnist-sat", "--data", "train.npz", "--arch", "tiny(width=2)")
    given = ("--epochs", str(epochs), "--set", "batch_size=8", "--device", "cpu", "--threads", "1")
    held_out = () if any("held_out" in word for word in changes) else ("--set", "held_out=8")
    return CliRunner().invoke(cli, [*words, *given, *held_out, "--name", name, *changes])


def told(result: Result) -> str:
    """Return the one sentence of a refused command."""
    assert isinstance(result.exception, SatbenchError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("runs", NAME).iterdir() if path.is_file()}


def weights() -> str:
    return read_card(Path("runs", NAME, f"{NAME}.json")).weights_digest


@pytest.fixture
def whole() -> str:
    """Return the weights of an uninterrupted run, and delete the run."""
    assert 0 == train(name=NAME).exit_code
    found = weights()
    for path in Path("runs", NAME).glob("**/*"):
        if path.is_file():
            path.unlink()
    return found


@pytest.mark.slow
def test_a_collapse_is_reported_and_recorded_and_a_rollback_keeps_a_sound_epoch() -> None:
    # Single-step training without a random start, on few noisy images, collapses.
    save(noisy(200, size=12, noise=0.15))
    changes = [
        *("--set", "held_out=100", "--arch", "tiny(width=16)", "--activation", "relu"),
        *("--set", "attack=pgd(steps=1,step=eps,start=clean)", "--set", "threat=linf:0.1"),
        *("--set", "learning_rate=0.1"),
    ]
    run = train(*changes, epochs=8)
    lines = [json.loads(line) for line in Path("runs/run/metrics.jsonl").read_text().splitlines()]
    collapsed = [line["epoch"] for line in lines if line["collapsed"]]

    assert 0 == run.exit_code
    worst = min(lines, key=lambda line: line["held_out_pgd10"] - line["train_accuracy"])
    assert worst["epoch"] in collapsed
    assert (worst["held_out_pgd10"] < 0.1, worst["train_accuracy"] > 0.5) == (True, True)
    assert len(collapsed) <= sum("catastrophic overfitting" in x for x in run.stderr.splitlines())
    training = read_card(Path("runs/run/run.json")).training
    assert training
    assert any("catastrophic overfitting" in note for note in training.notes)

    back = train(*changes, "--set", "on_overfitting=rollback", epochs=8, name="back")
    lines = [json.loads(line) for line in Path("runs/back/metrics.jsonl").read_text().splitlines()]
    training = read_card(Path("runs/back/back.json")).training
    assert 0 == back.exit_code
    assert training
    sound = [line["held_out_pgd10"] for line in lines if not line["collapsed"]]
    assert max(sound) == training.held_out["pgd-10"]


@pytest.mark.slow
def test_a_diverging_training_keeps_its_last_good_checkpoint_and_says_how_to_continue() -> None:
    # The second epoch has a rate that no training survives.
    rates = ["schedule=step", "milestones=1", "factor=1e20", "learning_rate=0.05"]
    said = told(train(*(word for rate in rates for word in ("--set", rate))))
    left = sorted(path.name for path in Path("runs/run").glob("*.pt"))

    assert "the last good checkpoint is runs/run/checkpoint.pt" in said
    assert "run.safetensors" not in files()
    assert "checkpoint.pt" in left
    for name in left:
        saved = torch.load(Path("runs/run", name), weights_only=True)
        assert all(tensor.isfinite().all() for tensor in saved["model"].values())
    assert all(t.isfinite().all() for t in read_state(Path("runs/run/best.safetensors")).values())
    on = train("--from", "runs/run/checkpoint.pt", "--set", "learning_rate=0.01", name="on")
    assert 0 == on.exit_code
    assert all(t.isfinite().all() for t in read_state(Path("runs/on/on.safetensors")).values())


@pytest.mark.sampled(1)
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_flipped_byte_in_a_checkpoint_only_costs_time(place: float) -> None:
    assert 0 == train().exit_code
    before, path = weights(), Path("runs/run/checkpoint.pt")
    spoilt = bytearray(path.read_bytes())
    spoilt[int(place * len(spoilt))] ^= 0x10
    path.write_bytes(spoilt)
    again = train()

    assert (0, before) == (again.exit_code, weights())
    assert "corrupt" in again.stderr


def test_a_full_disk_gives_one_sentence_and_the_same_command_resumes_the_run(
    whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, left = os.replace, iter(range(6))

    def full(*given: Any, **more: Any) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        said = told(train())

    assert "No space left on device" in said
    assert not list(Path("runs", NAME).glob("*.part"))
    assert (0, whole) == (train().exit_code, weights())


def test_a_second_process_for_the_same_run_is_refused_and_changes_no_file(whole: str) -> None:
    Path("runs", NAME).mkdir(exist_ok=True, parents=True)
    with lock_or_refuse(Path("runs", NAME, "lock"), "is at it"):
        before = files()
        assert f"process {os.getpid()} is running the same training" in told(train())
        assert before == files()

    assert (0, whole) == (train().exit_code, weights())


def test_changed_data_are_refused_and_the_run_is_unchanged() -> None:
    assert 0 == train().exit_code
    before = files()
    changed = noisy(40)
    changed["y"] = np.roll(changed["y"], 1)
    save(changed)

    assert "other training data" in told(train())
    assert before == files()
    save(noisy(40))
    assert 0 == train().exit_code
