"""`satbench train`: overrides, a user's own recipe, the table on a terminal."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from satbench.cli import cli
from satbench.data import Dataset
from satbench.model_zoo.card import read_card
from satbench.recipes import TrainConfig
from satbench.training.live import LiveTable
from satbench.training.loop import EpochMetrics
from satbench.training.watch import Held

SMALL = ("--recipe", "fmnist-sat", "--arch", "tiny(width=1)", "--epochs", "1", "--threads", "1")
SETS = ("--set", "batch_size=8", "--set", "held_out=8", "--device", "cpu", "--name", "mine")


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["train", *words])


@pytest.fixture
def _toy(toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("satbench.training.images.training_set.load_dataset", lambda *_, **__: toy)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_toy")
def test_set_changes_a_setting_and_the_card_holds_the_command() -> None:
    done = run(*SMALL, *SETS, "--set", "awp=0.01", "--json")
    training = read_card(Path("runs/mine/mine.json")).training

    assert done.exit_code == 0
    assert json.loads(done.stdout)["epoch"] == 1
    assert training is not None
    assert training.config["awp"] == 0.01
    assert training.command == (
        "satbench train --recipe fmnist-sat --arch 'tiny(width=1)' --activation relu --seed 0 "
        "--epochs 1 --set batch_size=8 --set held_out=8 --set awp=0.01 --threads 1"
    )


@pytest.mark.usefixtures("_toy")
def test_a_warning_of_overfitting_goes_to_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = iter([Held(0.9, 0.5, 0.5), Held(0.9, 0.1, 0.8)])
    monkeypatch.setattr("satbench.training.epochs.held_out_accuracies", lambda *_: next(measured))
    done = run(*SMALL, *SETS, "--epochs", "2", "--quiet")

    assert (
        "80.0% on held-out ones under the training attack, and 10.0% under PGD-10 (epoch 2): "
        "catastrophic overfitting"
    ) in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "epocs=3"), "unknown setting 'epocs': did you mean 'epochs'?"),
        (("--set", "seed=3", "--seed", "4"), "seed is given twice"),
        (("--recipe", "none.toml"), "expected a recipe at none.toml, which is missing"),
    ],
)
def test_a_wrong_option_is_refused_in_one_sentence(words: tuple[str, ...], said: str) -> None:
    done = run("--recipe", "fmnist-sat", *words)

    assert str(done.exception).startswith(said)


def test_the_table_has_one_row_per_epoch_and_warnings_below(config: TrainConfig) -> None:
    table = LiveTable("mine", config, quiet=True)
    first = EpochMetrics(1, 1.25, 0.5, 0.75, 0.5, 0.1, 1234.0)
    table.on_epoch(first)
    table.on_epoch(replace(first, epoch=2, held_out_pgd10=0.1, warning="it fell"))
    console = Console(file=io.StringIO(), width=80)
    console.print(table.table())
    assert isinstance(console.file, io.StringIO)
    lines = [line.split() for line in console.file.getvalue().splitlines()]

    assert lines[0] == ["mine"]
    assert lines[2] == ["1", "0.1", "1.250", "50.0%", "75.0%", "50.0%", "1234"]
    assert lines[3] == ["2", "0.1", "1.250", "50.0%", "75.0%", "10.0%", "1234"]
    assert lines[4] == ["it", "fell"]


def test_on_a_terminal_the_table_is_above_the_progress_bar(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=90, highlight=False)
    monkeypatch.setattr("satbench.core.console.Console", lambda **_: terminal)
    with LiveTable("mine", config, quiet=False) as table:
        table.on_step(0, 4, 4)
        table.on_epoch(EpochMetrics(1, 1.25, 0.5, 0.75, 0.5, 0.1, 1234.0))
    shown = screen.getvalue()

    assert table.is_shown
    assert shown.index("held-out clean") < shown.rindex("epoch 1/2")
    assert not LiveTable("mine", config, quiet=True).is_shown


@pytest.mark.slow
def test_a_model_can_be_trained_on_a_users_folder_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (tmp_path / "my pictures" / kind).mkdir(parents=True)
        for k in range(6):
            pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "my pictures" / kind / f"{k}.png")
    done = run(
        *("--recipe", "fmnist-sat", "--arch", "wide-resnet(depth=10,widen=1,statistics=none)"),
        *("--dataset", "imagefolder:my pictures@none", "--set", "batch_size=4", "--quiet"),
        *("--set", "held_out=2", "--epochs", "1", "--name", "mine", "--device", "cpu"),
    )
    card = read_card(Path("runs/mine/mine.json"))

    assert done.exit_code == 0, done.exception
    assert (card.input_shape, card.classes) == ((3, 8, 8), 2)
    assert "TEST_SET" in done.stdout
