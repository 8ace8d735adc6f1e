"""A run writes a card of its best epoch and of its last, next to the card of its result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import satbench
from satbench.cli import cli
from satbench.data import Dataset
from satbench.model_zoo.card import read_card
from satbench.model_zoo.weights import digest_weights
from satbench.models import load_model, request_model
from satbench.recipes import TrainConfig
from satbench.studies.store import Models, Places
from satbench.training.run import TrainingRun, run_training
from satbench.training.watch import Held

NAME = "toy-tiny-silu-s0"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make the second epoch of three the best; return the weights at the end of each."""
    digests: list[str] = []

    def measure(config: TrainConfig, inner: object, model: nn.Module, *rest: Any) -> Held:
        digests.append(digest_weights(model))
        return Held(0.8, [0.3, 0.5, 0.45][len(digests) - 1], 0.5, error=0.01)

    monkeypatch.setattr("satbench.training.epochs.held_out_accuracies", measure)
    return digests


def run(config: TrainConfig, toy: Dataset, out: Path, **changes: Any) -> TrainingRun:
    done = run_training(
        *(replace(config, epochs=3, batch_size=32, **changes), NAME, out, None, "cpu", 1),
        *(lambda metrics: None, True),
        given=toy,
    )
    assert done
    return done


def digest_of(card: Path) -> str:
    """Return the digest of the weights that `--model CARD` evaluates, checked against the card."""
    return digest_weights(load_model(request_model(str(card)), 3).module)


@pytest.mark.parametrize(("keep", "kept_epoch"), [("last", 2), ("best", 1)])
@pytest.mark.parametrize("again", [False, True])
def test_best_and_last_epoch_each_have_a_card_that_loads_their_weights(
    keep: str,
    kept_epoch: int,
    again: bool,
    config: TrainConfig,
    toy: Dataset,
    tmp_path: Path,
    seen: list[str],
) -> None:
    done = run(config, toy, tmp_path, keep=keep)
    if again:  # a finished run is found, and writes the same files
        before = {path.name: path.read_bytes() for path in done.card.parent.glob(f"{NAME}*")}
        done = run(config, toy, tmp_path, keep=keep)
        assert before == {
            path.name: path.read_bytes() for path in done.card.parent.glob(f"{NAME}*")
        }

    cards = {which: files[1] for which, files in done.epochs.items()}
    assert {"best": f"{NAME}-best.json", "last": f"{NAME}-last.json"} == {
        which: card.name for which, card in cards.items()
    }
    assert (seen[1], seen[2]) == (digest_of(cards["best"]), digest_of(cards["last"]))
    assert seen[kept_epoch] == digest_of(done.card) == digest_weights(done.trained.model)
    best, last = (read_card(cards[which]).training for which in ("best", "last"))
    assert best
    assert last
    assert (0.5, 0.45) == (best.held_out["pgd-10"], last.held_out["pgd-10"])
    assert (2, 3) == tuple(done.trained.epochs[w].metrics.epoch for w in ("best", "last"))


def test_no_weights_are_stored_twice(
    config: TrainConfig, toy: Dataset, tmp_path: Path, seen: list[str]
) -> None:
    folder = run(config, toy, tmp_path).card.parent

    assert {f"{NAME}.safetensors", f"{NAME}-best.safetensors"} == {
        path.name for path in folder.glob(f"{NAME}*.safetensors")
    }
    assert f"{NAME}.safetensors" == read_card(folder / f"{NAME}-last.json").weights
    assert len(seen) == 3


def test_with_an_average_both_cards_hold_averaged_weights(
    config: TrainConfig, toy: Dataset, tmp_path: Path, seen: list[str]
) -> None:
    done = run(config, toy, tmp_path, ema_decay=0.9)

    assert seen[1:] == [digest_of(done.epochs[which][1]) for which in ("best", "last")]
    told = read_card(done.epochs["best"][1]).training
    assert told
    assert "moving average" in told.kept


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize("renamed", [False, True])
def test_the_folder_of_a_run_names_its_result(
    renamed: bool, config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    folder = run(config, toy, tmp_path).card.parent
    if renamed:
        folder = folder.rename(tmp_path / "other")
    request = request_model(str(folder))

    assert request.card
    assert NAME == request.card.name


@pytest.mark.usefixtures("seen")
def test_a_study_uses_the_result_of_a_run(
    config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    run(config, toy, tmp_path / "models")
    models = Models(Places(store=tmp_path))
    models._look(tmp_path / "models", "store")

    assert [NAME] == [m.card.name for m in models._by_key.values() if m.origin == "store"]


@pytest.mark.usefixtures("seen")
def test_training_from_python_leaves_weights_files_of_both_epochs(
    toy: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    x, y = torch.from_numpy(toy.images).float() / 255, torch.from_numpy(toy.labels)
    done = satbench.train(
        *(network, (x, y)), epochs=3, batch_size=32, held_out=8, out=tmp_path, quiet=True
    )

    assert done.last == done.path
    assert done.best
    assert done.best.stem == f"{done.path.stem}-best"
    assert not torch.equal(
        *(nn_state(path)["1.weight"] for path in (done.best, done.last)),
    )
    assert done.best.with_suffix(".json").is_file()


def nn_state(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


@pytest.mark.usefixtures("seen")
def test_the_command_names_both_cards(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satbench.training.images.training_set.load_dataset", lambda *_, **__: toy)
    words = ("train", "--recipe", "fmnist-sat", "--arch", "tiny(width=1)", "--epochs", "3")
    told = CliRunner().invoke(
        cli,
        [
            *words,
            *("--set", "batch_size=32", "--set", "held_out=8", "--out", str(tmp_path)),
            *("--name", NAME, "--device", "cpu"),
        ],
    )

    assert 0 == told.exit_code, told.output
    named = [line.split()[1].rstrip(",") for line in told.stdout.splitlines() if "epoch (" in line]
    assert [str(tmp_path / NAME / f"{NAME}-{which}.json") for which in ("best", "last")] == named
