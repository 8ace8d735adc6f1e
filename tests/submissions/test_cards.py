"""Cards for weights that were trained elsewhere."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.model_zoo.card import Card, Training, find_card, read_card
from satbench.models import load_model, request_model

SHIPPED = "fmnist-sat-tiny-silu-s0"
DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "card.md"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint in a usual form: a pickle of tensors with a prefix."""
    state = {f"module.{k}": v for k, v in load_file(find_card(SHIPPED)[1]).items()}
    name = next(k for k in state if k.endswith("bias"))
    state[name] = state[name] + 0.01
    torch.save({"state_dict": state}, tmp_path / "net.pt")
    return tmp_path / "net.pt"


def words(checkpoint: Path, *more: str) -> list[str]:
    given = ["--arch", "tiny(width=8)", "--activation", "silu", "--shape", "1x28x28"]
    named = ["--name", "mine", "--licence", "MIT", "--out", str(checkpoint.parent)]
    return ["models", "card", str(checkpoint), *given, *named, *more]


def test_the_command_makes_a_card_whose_model_has_the_logits_of_the_checkpoint(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SATBENCH_ZOO", str(checkpoint.parent / "zoo"))
    done = CliRunner().invoke(cli, words(checkpoint, "--origin", "a test", "--json"))
    path = Path(json.loads(done.output)["card"])
    card = read_card(path)
    x = torch.rand(4, 1, 28, 28)
    given = request_model(str(checkpoint), "tiny(width=8)", "silu")

    assert (card.name, card.input_shape, card.classes, card.training) == (
        "mine",
        (1, 28, 28),
        10,
        None,
    )
    assert torch.equal(
        load_model(request_model(str(path)), 10).module(x), load_model(given, 10).module(x)
    )
    assert CliRunner().invoke(cli, ["models", "add", str(path)]).exit_code == 0


def test_the_training_options_of_a_card_are_given_all_or_not_at_all(checkpoint: Path) -> None:
    part = CliRunner().invoke(cli, words(checkpoint, "--recipe", "mine"))
    whole = (
        "--recipe",
        "mine",
        "--seed",
        "3",
        "--threat",
        "linf:8/255",
        "--dataset",
        "fashion-mnist-train",
    )
    done = CliRunner().invoke(cli, words(checkpoint, *whole, "--trained-with", "pgd(steps=7)"))
    card = read_card(checkpoint.parent / "mine.json")

    assert isinstance(part.exception, SatbenchError)
    assert done.exit_code == 0
    assert card.training is not None
    assert (card.training.seed, card.training.threat) == (3, "linf:8/255")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--name", "../evil"), "expected a name"),
        (("--name", "\x1b[31m"), "expected a name"),
        (("--shape", "28x28"), "expected a shape"),
        (("--shape", "3x28x28"), "cannot take images|input_shape|channels"),
        (("--licence", " "), "licence"),
        (("--licence", "MIT\nand more"), "printable"),
        (("--arch", "tiny(width=4)"), "fit|shape|size"),
        (("--arch", "none-such"), "none-such"),
    ],
    ids=range(8),
)
def test_invalid_options_are_refused_and_nothing_is_written(
    checkpoint: Path, changed: tuple[str, str], said: str
) -> None:
    before = set(checkpoint.parent.iterdir())
    done = CliRunner().invoke(cli, words(checkpoint, *changed))

    assert isinstance(done.exception, SatbenchError)
    assert re.search(said, str(done.exception))
    assert set(checkpoint.parent.iterdir()) == before


def test_an_existing_card_is_not_overwritten(checkpoint: Path) -> None:
    first, second = (CliRunner().invoke(cli, words(checkpoint)) for _ in range(2))

    assert first.exit_code == 0
    assert isinstance(second.exception, SatbenchError)


def test_the_docs_describe_each_field_of_a_card() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for one in (*fields(Card), *fields(Training)):
        assert f"| `{one.name}` |" in text, one.name
