"""Training that is killed repeatedly ends with the same weights."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from satbench.data import Dataset, ImageTree
from satbench.model_zoo.card import read_card
from satbench.model_zoo.weights import digest_weights
from satbench.recipes import TrainConfig
from satbench.training import epochs
from satbench.training.loop import train

CPU = torch.device("cpu")


def train_in_a_child(config: TrainConfig, data: Dataset, folder: Path) -> int:
    """Start to train in a forked process, which writes a checkpoint at every step."""
    child = os.fork()
    if child:
        return child
    epochs.SAVE_EVERY_SECONDS = -1.0
    try:
        train(config, data, folder, CPU)
    finally:
        os._exit(0)
    raise AssertionError


@pytest.mark.slow
def test_a_run_killed_five_times_ends_with_the_same_weights_and_metrics(
    config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    changed = replace(config, epochs=8, ema_decay=0.9, augment="crop-flip")
    check_kills(changed, toy, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_from_a_folder_killed_five_times_ends_with_the_same_weights(
    workers: int, from_folder: TrainConfig, tree: ImageTree, tmp_path: Path
) -> None:
    check_kills(replace(from_folder, epochs=8), replace(tree, workers=workers), tmp_path)


def check_kills(changed: TrainConfig, data: Dataset, tmp_path: Path) -> None:
    """Train without a stop and with five kills, and compare all files."""
    whole = train(changed, data, tmp_path / "whole", CPU)
    rng, killed, places = random.Random(0), 0, []
    checkpoint = tmp_path / "cut" / "checkpoint.pt"
    for _ in range(5):
        child = train_in_a_child(changed, data, tmp_path / "cut")
        before, fresh = (checkpoint.stat().st_ino if checkpoint.exists() else 0), 0
        while fresh < 3 and os.waitpid(child, os.WNOHANG) == (0, 0):
            if checkpoint.exists() and checkpoint.stat().st_ino != before:
                before, fresh = checkpoint.stat().st_ino, fresh + 1
            time.sleep(0.0005)
        time.sleep(rng.random() * 0.01)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        place = torch.load(checkpoint, weights_only=True)["place"]
        places.append((place["epoch"], place["step"]))

    done = train(changed, data, tmp_path / "cut", CPU)

    assert killed == 5
    assert places == sorted(places)
    assert places[0] < places[-1]
    assert digest_weights(done.model) == digest_weights(whole.model)
    assert timeless(tmp_path / "cut") == timeless(tmp_path / "whole")
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == sorted(
        p.name for p in (tmp_path / "whole").iterdir()
    )
    assert done.chosen.metrics.epoch == whole.chosen.metrics.epoch


def timeless(folder: Path) -> list[dict[str, float]]:
    """Return the metrics on disk without those that depend on the clock."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{**json.loads(line), "images_per_second": 0} for line in lines]


COMMAND = (
    *(sys.executable, "-m", "satbench", "train", "--recipe", "fmnist-sat", "--threads", "1"),
    *("--arch", "tiny(width=1)", "--epochs", "2", "--set", "batch_size=512", "--name", "mine"),
    *("--set", "ema_decay=0.99", "--set", "held_out=250", "--device", "cpu", "--quiet"),
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


@pytest.mark.slow
def test_the_command_killed_six_times_writes_the_same_card_and_weights(tmp_path: Path) -> None:
    assert finish(start(tmp_path / "whole")) == (0, "")
    rng, kills, out = random.Random(0), 0, tmp_path / "cut"
    while kills < 6:
        process = start(out)
        time.sleep(rng.uniform(1, 8))
        process.send_signal(signal.SIGKILL)
        code, _ = finish(process)
        if code == 0:
            break
        kills += 1
    assert finish(start(out)) == (0, "")

    whole, cut = (read_card(folder / "mine" / "mine.json") for folder in (tmp_path / "whole", out))
    assert kills >= 3
    assert cut == whole
    assert timeless(out / "mine") == timeless(tmp_path / "whole" / "mine")
    for name in ("mine.safetensors", "best.safetensors"):
        assert (out / "mine" / name).read_bytes() == (
            tmp_path / "whole" / "mine" / name
        ).read_bytes()
