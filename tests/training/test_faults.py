"""Disturbances of a training run: other data, a second process, a full disk, Ctrl-C."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from satbench.cli.shell.failures import STOPPED
from satbench.core.errors import SatbenchError
from satbench.data import Dataset, ImageTree, ResizeCrop, open_tree
from satbench.model_zoo.card import read_card
from satbench.model_zoo.weights import digest_weights
from satbench.recipes import TrainConfig
from satbench.training.interrupts import uninterrupted
from satbench.training.loop import train
from satbench.training.run import run_training
from satbench.training.saved.checkpoint import STATE, has_checkpoint, read_checkpoint
from satbench.training.saved.facts import Facts, difference
from satbench.training.update.inner import Inner
from satbench.training.update.step import Stepper

CPU = torch.device("cpu")
Cut = Callable[[int, int], Any]


@pytest.fixture
def cut(
    config: TrainConfig, toy: Dataset, power_cut: type[Exception], cut_at: Cut, tmp_path: Path
) -> Path:
    """Return the folder of a run whose first epoch is done."""
    with pytest.raises(power_cut):
        train(config, toy, tmp_path / "cut", CPU, on_step=cut_at(1, 1))
    return tmp_path / "cut"


# Other data


@pytest.mark.parametrize(
    "change",
    [
        lambda toy: replace(toy, images=255 - toy.images, labels=2 - toy.labels),
        lambda toy: replace(toy, labels=np.roll(toy.labels, 1)),
        lambda toy: toy.first(32),
        lambda toy: toy.shuffled(),
    ],
    ids=["inverted", "other labels", "fewer", "another order"],
)
def test_a_run_is_not_resumed_with_other_data(
    change: Callable[[Dataset], Dataset], config: TrainConfig, toy: Dataset, cut: Path
) -> None:
    before = {path: path.read_bytes() for path in cut.iterdir()}
    with pytest.raises(
        SatbenchError, match=r"^.* holds a run that began on other training data \("
    ):
        train(config, change(toy), cut, CPU)

    assert {path: path.read_bytes() for path in cut.iterdir()} == before


def test_a_run_without_a_checkpoint_may_start_again_with_other_data(
    config: TrainConfig, toy: Dataset, power_cut: type[Exception], cut_at: Cut, tmp_path: Path
) -> None:
    with pytest.raises(power_cut):
        train(config, toy.shuffled(), tmp_path, CPU, on_step=cut_at(0, 1))
    done = train(config, toy, tmp_path, CPU)

    assert done.facts is not None
    assert done.facts.data == toy.digest


def test_replaced_image_files_of_equal_size_are_detected(
    from_folder: TrainConfig,
    tree: ImageTree,
    power_cut: type[Exception],
    cut_at: Cut,
    tmp_path: Path,
) -> None:
    bitmaps = tmp_path / "bitmaps"  # without compression the sizes are equal
    for row, name in enumerate(tree.files):
        path = bitmaps / Path(name).with_suffix(".bmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        tree.picture(row).save(path)
    data = open_tree(f"imagefolder:{bitmaps}", ResizeCrop.centre(16), 0)
    with pytest.raises(power_cut):
        train(from_folder, data, tmp_path / "run", CPU, on_step=cut_at(1, 1))
    for name in data.files:
        with Image.open(bitmaps / name) as picture:
            inverted = Image.fromarray(255 - np.asarray(picture))
        inverted.save(bitmaps / name)
    again = open_tree(f"imagefolder:{bitmaps}", ResizeCrop.centre(16), 0)

    assert again.digest == data.digest
    with pytest.raises(SatbenchError, match=r"\(the same names and sizes, other bytes\)"):
        train(from_folder, again, tmp_path / "run", CPU)


# Other threads, processes, versions


def test_a_changed_environment_is_reported_and_the_run_continues(
    config: TrainConfig, toy: Dataset, cut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    done = train(config, toy, cut, CPU, on_note=notes.append)

    assert len(notes) == 1
    assert re.match(
        r"goes on with threads 2 for 1, torch 9\.9\.9 for \S+: the weights may", notes[0]
    )
    assert done.notes[0] == notes[0]
    assert done.facts is not None
    assert (done.facts.threads, done.facts.torch != "9.9.9") == (1, True)


def test_a_finished_run_gets_no_note_about_another_thread_count(
    config: TrainConfig, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(config, toy, tmp_path, CPU)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    assert train(config, toy, tmp_path, CPU).notes == first.notes


def test_every_changed_fact_except_the_data_is_named() -> None:
    began = Facts("d", 1, 2, "cpu", "2.9", "0.1", "f")
    now = Facts("e", 2, 4, "NVIDIA X", "2.10", "0.2", "g")

    assert difference(began, began) == ""
    assert difference(began, now).startswith(
        "goes on with threads 2 for 1, processes 4 for 2, device NVIDIA X for cpu, "
        "torch 2.10 for 2.9, satbench 0.2 for 0.1: "
    )


def test_a_run_of_an_older_satbench_records_the_facts_of_today(
    config: TrainConfig, toy: Dataset, cut: Path
) -> None:
    (cut / "config.json").write_text(json.dumps(config.to_dict()))
    notes: list[str] = []
    train(config, toy, cut, CPU, on_note=notes.append)

    assert notes == []
    assert json.loads((cut / "config.json").read_text())["run"]["data"] == toy.digest


def test_the_card_holds_the_first_command_and_the_later_changes(
    config: TrainConfig,
    toy: Dataset,
    power_cut: type[Exception],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("satbench.training.images.training_set.load_dataset", lambda *_, **__: toy)
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])

    def stop(metrics: object) -> None:
        raise power_cut

    run: dict[str, Any] = {"name": "mine", "out": tmp_path, "data_dir": None, "device": "cpu"}
    with pytest.raises(power_cut):
        run_training(config, threads=1, on_epoch=stop, quiet=True, **run)
    done = run_training(config, threads=2, on_epoch=lambda metrics: None, quiet=True, **run)
    assert done is not None
    training = read_card(done.card).training
    assert training is not None

    assert training.command.endswith("--threads 1")
    assert training.notes[0].startswith("goes on with threads 2 for 1: ")


# A second process


def test_a_second_training_of_a_run_is_refused(
    config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    seen: list[str] = []

    def try_too(epoch: int, step: int, steps: int) -> None:
        if (epoch, step) == (0, 2):
            with pytest.raises(SatbenchError) as told:
                train(config, toy, tmp_path, CPU)
            seen.append(str(told.value))

    train(config, toy, tmp_path, CPU, on_step=try_too)

    assert seen == [
        f"process {os.getpid()} is running the same training ({tmp_path}); wait for it, or give "
        "another --name or --out"
    ]


# A full disk


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Limit the size of files, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def whole(
    config: TrainConfig, toy: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[float]]:
    """Return the digest of the weights, and the losses, of an uninterrupted run."""
    torch.set_num_threads(1)
    done = train(config, toy, tmp_path_factory.mktemp("whole"), CPU)
    return digest_weights(done.model), [metrics.loss for metrics in done.history]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("size", [20, 2000, 5000, 7000], ids=lambda size: f"{size} bytes")
def test_a_full_disk_gives_one_sentence_and_the_run_resumes_when_there_is_room(
    size: int, config: TrainConfig, toy: Dataset, whole: tuple[str, list[float]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with files_of_at_most(size), pytest.raises(SatbenchError) as told:
        train(config, toy, folder, CPU)

    assert str(told.value) == (
        f"cannot write to {folder} (File too large): free some space, then give the same command "
        "to continue"
    )
    assert list(folder.glob("*.part")) == []
    assert digest_weights(train(config, toy, folder, CPU).model) == whole[0]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("kind", "after"), [(errno.ENOSPC, 1), (errno.ENOSPC, 700), (errno.EDQUOT, 700), (errno.EIO, 1)]
)
def test_a_disk_that_fills_up_during_a_checkpoint_leaves_the_previous_one(
    kind: int,
    after: int,
    config: TrainConfig,
    toy: Dataset,
    cut: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = (cut / STATE).read_bytes()
    save = torch.save

    def full(state: object, file: Any, *rest: Any, **more: Any) -> None:
        class Disk:
            written = 0

            def write(self, data: bytes) -> int:
                self.written += len(data)
                if self.written > after:
                    raise OSError(kind, os.strerror(kind))
                return len(data)

            def flush(self) -> None: ...

        file._file = Disk()
        save(state, file, *rest, **more)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        SatbenchError, match=rf"^cannot write to .* \({os.strerror(kind)}\): free s"
    ):
        train(config, toy, cut, CPU)

    assert (cut / STATE).read_bytes() == before


def test_a_folder_that_cannot_be_created_gives_one_sentence(
    config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SatbenchError, match=r"^cannot write to .*file.run \("):
        train(config, toy, tmp_path / "file" / "run", CPU)


# Ctrl-C


def interrupt_within(where: str, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C half-way through the nth call of something."""
    places: dict[str, tuple[Any, str]] = {
        "the attack": (Inner, "perturb"),
        "the update": (torch.optim.SGD, "step"),
        "the measurement": (Inner, "search"),
    }
    owner, name = places[where]
    real, calls = getattr(owner, name), []

    def pressed(*given: Any, **more: Any) -> Any:
        calls.append(None)
        if len(calls) == nth:
            signal.raise_signal(signal.SIGINT)
        return real(*given, **more)

    monkeypatch.setattr(owner, name, pressed)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("where", "nth", "place"),
    [
        ("the attack", 1, (0, 1)),
        ("the attack", 6, (1, 2)),
        ("the update", 8, (1, 4)),
        ("the measurement", 1, (0, 4)),
        ("the measurement", 2, (1, 4)),
    ],
)
def test_ctrl_c_leaves_a_checkpoint_of_the_last_step_and_the_resumed_run_is_equal(
    where: str,
    nth: int,
    place: tuple[int, int],
    config: TrainConfig,
    toy: Dataset,
    whole: tuple[str, list[float]],
    tmp_path: Path,
) -> None:
    check_interrupted(config, toy, tmp_path, (where, nth), place, whole)


def test_ctrl_c_while_an_average_is_measured_counts_no_epoch_twice(
    config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    averaged = replace(config, swa_from=1)
    done = train(averaged, toy, tmp_path / "whole", CPU)
    whole = (digest_weights(done.model), [metrics.loss for metrics in done.history])

    check_interrupted(averaged, toy, tmp_path, ("the measurement", 2), (1, 4), whole)


def check_interrupted(
    config: TrainConfig,
    toy: Dataset,
    folder: Path,
    when: tuple[str, int],
    place: tuple[int, int],
    whole: tuple[str, list[float]],
) -> None:
    """Interrupt a run, check where it stopped, and resume it to the end."""
    with pytest.MonkeyPatch.context() as patch:
        interrupt_within(*when, patch)
        with pytest.raises(KeyboardInterrupt):
            train(config, toy, folder / "cut", CPU)
    saved = read_checkpoint(folder / "cut" / STATE)["place"]
    done = train(config, toy, folder / "cut", CPU)

    assert (saved["epoch"], saved["step"]) == place
    assert digest_weights(done.model) == whole[0]
    assert [metrics.loss for metrics in done.history] == whole[1]


def test_a_second_ctrl_c_stops_at_once_without_saving_half_a_step(
    config: TrainConfig, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*given: Any) -> Tensor:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError

    monkeypatch.setattr(Stepper, "__call__", pressed)
    with pytest.raises(KeyboardInterrupt):
        train(config, toy, tmp_path, CPU)

    assert not has_checkpoint(tmp_path)


def test_a_patient_block_completes_even_if_ctrl_c_is_pressed_repeatedly() -> None:
    ends = []

    def step() -> None:
        with uninterrupted(patient=True):
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
            ends.append(True)

    with pytest.raises(KeyboardInterrupt):
        step()

    assert ends == [True]


def test_the_users_handler_of_ctrl_c_is_restored() -> None:
    before = signal.getsignal(signal.SIGINT)
    with uninterrupted(patient=False):
        assert signal.getsignal(signal.SIGINT) != before

    assert signal.getsignal(signal.SIGINT) == before


def test_training_works_in_a_thread_without_signals(
    config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    done: list[Any] = []
    thread = threading.Thread(
        target=lambda: done.append(train(replace(config, epochs=1), toy, tmp_path, CPU))
    )
    thread.start()
    thread.join()

    assert len(done) == 1


# The command


COMMAND = (
    *(sys.executable, "-m", "satbench", "train", "--recipe", "fmnist-sat", "--threads", "1"),
    *("--arch", "tiny(width=1)", "--epochs", "2", "--set", "batch_size=512", "--name", "mine"),
    *("--set", "held_out=250", "--device", "cpu", "--quiet"),
)


def start(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        (*COMMAND, "--out", str(out)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit code and stderr."""
    _, said = process.communicate(timeout=600)
    return process.returncode, said


@pytest.mark.slow
def test_ctrl_c_in_the_command_leaves_a_checkpoint_and_prints_one_line(tmp_path: Path) -> None:
    assert ended(start(tmp_path / "whole"))[0] == 0
    process = start(tmp_path / "cut")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("epoch 1/2")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    code, said = ended(process)
    place = read_checkpoint(tmp_path / "cut" / "mine" / STATE)["place"]

    assert (code, said.lstrip("\n")) == (
        130,
        f"satbench: {STOPPED}\n",
    )
    assert place["epoch"] == 1
    assert ended(start(tmp_path / "cut"))[0] == 0
    assert (tmp_path / "cut/mine/mine.safetensors").read_bytes() == (
        tmp_path / "whole/mine/mine.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_a_second_command_for_the_same_run_is_refused(tmp_path: Path) -> None:
    first = start(tmp_path)
    assert first.stdout is not None
    assert first.stdout.readline().startswith("epoch 1/2")
    first.send_signal(signal.SIGSTOP)
    code, said = ended(start(tmp_path))
    first.send_signal(signal.SIGCONT)

    assert (code, len(said.splitlines())) == (2, 1)
    assert said.startswith(f"satbench: process {first.pid} is running the same training")
    assert ended(first)[0] == 0
