"""Each kind of tampering with a shipped record is found without an attack, or documented."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from satbench.board.board import defined_board
from satbench.board.definition import board_definition, read_definition
from satbench.core.errors import SatbenchError
from satbench.data import Dataset, load_dataset
from satbench.proofs.verification import verify_record
from satbench.records.witnesses import find_witnesses, read_witnesses

from .tampering import CAUGHT, TRUSTED, Forged, copy_of

MODEL = "fmnist-sat-tiny-relu-s1"
TRUST = Path(__file__).parents[2] / "docs" / "trust.md"


@pytest.fixture(scope="module")
def images() -> Dataset:
    return load_dataset("fashion-mnist", "test", 500)


@pytest.fixture(autouse=True)
def _read_the_images_once(monkeypatch: pytest.MonkeyPatch, images: Dataset) -> None:
    def load(name: str, *_: Any, **__: Any) -> Dataset:
        assert name.startswith("fashion-mnist")
        return images

    monkeypatch.setattr("satbench.evaluation.given.load_dataset", load)


@pytest.fixture(scope="module")
def original(images: Dataset) -> Forged:
    """Return the shipped record of PGD-50 and AutoAttack on a model with a flag."""
    board = board_definition("fashion-mnist-linf-0.1")
    paths = [path for path in board.records.glob(f"{MODEL}-*.json") if _is_autoattack(path)]
    values = json.loads(paths[0].read_text())
    witnesses = read_witnesses(find_witnesses(paths[0], values["witnesses_digest"]))
    return Forged(values, witnesses, images.pixels(range(500)))  # type: ignore[arg-type]


def _is_autoattack(path: Path) -> bool:
    return any(spec.startswith("autoattack(") for spec in json.loads(path.read_text())["suite"])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return the path of a record on a board like the shipped one."""
    (tmp_path / "records").mkdir()
    text = (board_definition("fashion-mnist-linf-0.1").folder / "board.toml").read_bytes()
    (tmp_path / "board.toml").write_bytes(text)
    return tmp_path / "records" / "record.json"


def said_of(path: Path) -> list[str]:
    """Return the faults that `satbench verify` and the board find in a record."""
    said = []
    try:
        said += verify_record(path).faults
    except SatbenchError as error:
        said.append(str(error))
    try:
        defined_board(read_definition(path.parent.parent / "board.toml"))
    except SatbenchError as error:
        said.append(str(error))
    return said


def test_the_unchanged_record_has_no_faults(original: Forged, home: Path) -> None:
    copy_of(original).write(home)
    assert said_of(home) == []


@pytest.mark.parametrize("kind", CAUGHT)
def test_tampering_is_found_without_an_attack(kind: str, original: Forged, home: Path) -> None:
    forged = copy_of(original)
    CAUGHT[kind](forged)
    forged.write(home)
    said = said_of(home)

    assert said
    assert all("\n" not in sentence for sentence in said)


@pytest.mark.parametrize("kind", TRUSTED)
def test_tampering_that_is_not_found_is_named_in_the_docs(
    kind: str, original: Forged, home: Path
) -> None:
    forged = copy_of(original)
    TRUSTED[kind](forged)
    forged.write(home)

    assert said_of(home) == []
    assert kind in re.findall(r"`(\w+)`", TRUST.read_text(encoding="utf-8"))


def test_the_docs_state_the_numbers_of_kinds() -> None:
    text = TRUST.read_text(encoding="utf-8")
    assert f"{len(CAUGHT)} kinds are caught" in text
    assert f"{len(TRUSTED)} are not" in text
    whole = (TRUST.parent / "reliability.md").read_text(encoding="utf-8")
    assert f"| {len(CAUGHT) + len(TRUSTED)} | {len(CAUGHT)} caught by" in whole
    assert f"{len(TRUSTED)} cannot be seen" in whole


def test_an_older_reference_run_without_diagnosis_has_no_faults(images: Dataset) -> None:
    paths = sorted(board_definition("fashion-mnist-linf-0.1").reference.glob(f"{MODEL}-*.json"))
    (old,) = [path for path in paths if json.loads(path.read_text())["schema"] == 1]

    assert verify_record(old).faults == []
