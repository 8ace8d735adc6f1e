"""A small board, a submitter's model, its record, and a submission of these."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import satbench
from satbench.board.definition import BoardDefinition, read_definition
from satbench.data import Dataset
from satbench.model_zoo.card import find_card
from satbench.models import FileOptions
from satbench.submissions.carding import CardFields, make_card
from satbench.submissions.packing import Packing, pack
from satbench.submissions.reviewing import Review

N = 60
SHIPPED = "fmnist-sat-tiny-relu-s0"
BOARD = f"""
schema = 1
summary = "a small board"
dataset = "fashion-mnist"
split = "test"
n = {N}
threat = "linf:0.1"
suites = [["pgd-1", "pgd-10"]]
columns = ["clean", "best_known"]
"""
ATTACKS = ["pgd-1", "pgd-10"]


@pytest.fixture(autouse=True)
def _read_the_images_once(monkeypatch: pytest.MonkeyPatch, fashion: Dataset) -> None:
    monkeypatch.setattr("satbench.evaluation.given.load_dataset", lambda *_, **__: fashion)


@pytest.fixture(scope="session")
def own_card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card of a submitter's model: a shipped model with slightly changed weights."""
    folder = tmp_path_factory.mktemp("own")
    state = load_file(find_card(SHIPPED)[1])
    generator = torch.Generator().manual_seed(0)
    for value in state.values():
        if value.is_floating_point():
            value += 0.01 * value.abs() * torch.randn(value.shape, generator=generator)
    save_file(state, folder / "net.safetensors")
    fields = CardFields("mine", (1, 28, 28), "MIT", "a test")
    options = FileOptions("tiny(width=8)", "relu")
    return make_card(folder / "net.safetensors", options, fields, folder)


@pytest.fixture(scope="session")
def own_record(own_card: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results")
    given: dict[str, Any] = {"x": "fashion-mnist", "n_examples": N, "norm": "linf", "eps": "0.1"}
    made = satbench.evaluate(str(own_card), attacks=ATTACKS, out=out, **given)
    assert made.path is not None
    assert {-1, 0, 1, 2} == set(made.verdicts)
    return made.path


@pytest.fixture(scope="session")
def shipped_record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shipped")
    made = satbench.evaluate(SHIPPED, attacks=ATTACKS, n_examples=N, eps="0.1", out=out)
    assert made.path is not None
    return made.path


@pytest.fixture
def board(tmp_path: Path, shipped_record: Path) -> BoardDefinition:
    """A board with one record of a shipped model."""
    folder = tmp_path / "leaderboard" / "small"
    (folder / "records").mkdir(parents=True)
    (folder / "board.toml").write_text(BOARD)
    for path in shipped_record.parent.iterdir():
        if path.is_file():
            shutil.copy(path, folder / "records")
    return read_definition(folder / "board.toml")


Packer = Callable[..., Review]


@pytest.fixture
def packer(own_card: Path, own_record: Path, board: BoardDefinition, tmp_path: Path) -> Packer:
    """A function that packs the submitter's record for the small board."""

    def packed(**changed: Any) -> Review:
        given: dict[str, Any] = {
            "records": (own_record,),
            "by": "a tester",
            "out": tmp_path / "submissions" / "mine",
            "model": str(own_card),
        }
        return pack(Packing(**{**given, **changed}), board)

    return packed
