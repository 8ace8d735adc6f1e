"""`satbench.evaluate` checks its arguments first: a wrong one is refused in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import satbench
from satbench.core.errors import SatbenchError
from satbench.evaluation import arguments
from satbench.records.record import Record, read_record
from satbench.records.witnesses import read_witnesses, witnesses_path

X = torch.tensor([0.49, 0.51, 0.55, 0.7]).view(-1, 1, 1, 1).repeat(1, 1, 2, 2)
Y = torch.ones(4, dtype=torch.int64)
PGD = "pgd(steps=5,start=clean)"


class Untouched(nn.Module):
    """A model that fails the test if it is called."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the model was asked before its arguments were checked")


def evaluate(model: nn.Module, **changes: Any) -> Record:
    given = {"attacks": [PGD], "eps": "0.1"} | changes
    return satbench.evaluate(model, X, Y, **given)


WRONG = [
    ("norm", 0, "got 0"),
    ("norm", 2, "write norm='l2'"),
    ("norm", 1.0, "write norm='l1'"),
    ("norm", math.inf, "write norm='linf'"),
    ("norm", "", "got ''"),
    ("seed", 1.5, "got 1.5"),
    ("seed", "a", "got 'a'"),
    ("seed", True, "got True"),
    ("seed", None, "got None"),
    ("batch_size", 1.0, "got 1.0"),
    ("batch_size", "32", "got '32'"),
    ("batch_size", np.array([1, 2]), "got a ndarray"),
    ("n_examples", 1.0, "got 1.0"),
    ("n_examples", True, "got True"),
    ("name", 5, "got 5"),
    ("name", " ", "got ' '"),
    ("attacks", None, "got None"),
    ("attacks", [5], "got a list with 5"),
    ("attacks", {"pgd"}, "got a set"),
    ("attacks", [], "at least one attack"),
    ("attacks", "", "got ''"),
    ("bpda", "x", "got 'x'"),
    ("bpda", {5: "identity"}, "got a dict"),
    ("device", 3, "write device='cuda:3'"),
    ("device", None, "got None"),
    ("until", True, "got True"),
    ("until", [0.1], "got a list with 0.1"),
    ("eps", True, "got True"),
    ("eps", [0.1], "got a list with 0.1"),
    ("eps", 1j, "got a complex"),
    ("eps", torch.tensor([0.1, 0.2]), "got a Tensor"),
    ("eps", "0.1/0", "got '0.1/0'"),
    ("eps", "1e999999999", "got '1e999999999'"),
    ("eps", math.nan, "got 'nan'"),
    ("out", "", "got ''"),
    ("out", 5, "got 5"),
    ("out", "o" * 300, "too long"),
    ("out", "a\0b", "null"),
    ("fresh", 1, "got 1"),
]


@pytest.mark.parametrize(("name", "value", "said"), WRONG, ids=lambda value: str(value)[:20])
def test_an_argument_of_a_wrong_type_is_refused_in_one_sentence_before_anything_runs(
    name: str, value: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SatbenchError) as refused:
        evaluate(Untouched(), **{name: value})

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "function", [satbench.evaluate, satbench.challenge, satbench.merge], ids=lambda f: f.__name__
)
def test_every_keyword_is_checked(function: Callable[..., object]) -> None:
    keywords = {name for name, one in signature(function).parameters.items() if one.kind == 3}

    assert keywords <= set(arguments._ARGUMENTS)


def test_attacks_may_be_a_single_text(mean_model: nn.Module, tmp_path: Path) -> None:
    one = evaluate(mean_model, attacks=PGD, out=tmp_path)

    assert one == evaluate(mean_model, attacks=(PGD,), out=tmp_path)


NUMPY = {"seed": np.int64(3), "batch_size": np.int32(2), "n_examples": np.uint8(3)}


def test_numpy_numbers_are_accepted(mean_model: nn.Module, tmp_path: Path) -> None:
    record = evaluate(mean_model, **NUMPY, out=tmp_path)

    assert read_record(next(tmp_path.glob("*.json"))) == record
    assert (record.seed, record.n) == (3, 3)


EIGHT = "8/255"
RADII = [
    (8 / 255, EIGHT),
    (np.float64(8 / 255), EIGHT),
    (np.float32(8 / 255), EIGHT),
    (np.float32(8) / np.float32(255), EIGHT),
    (np.float16(8 / 255), EIGHT),
    (np.array(8 / 255, np.float32), EIGHT),
    (torch.tensor(8 / 255), EIGHT),
    (torch.tensor([8 / 255], dtype=torch.float64), EIGHT),
    (torch.tensor(0.25, dtype=torch.bfloat16), "0.25"),
    (" 8 / 255 ", EIGHT),
    (np.float32(0.3), "0.3"),
    (np.float32(0.031), "0.031"),
    (Decimal("0.03"), "0.03"),
    (Fraction(1, 3), "85/255"),
    ("0.5/255", "1/510"),
    (0.5 / 255, "1/510"),
    (np.float32(1.5 / 255), "1/170"),
    (np.int64(1), "1"),
]


@pytest.mark.parametrize(("eps", "shown"), RADII, ids=[f"{n} {r[1]}" for n, r in enumerate(RADII)])
def test_a_radius_in_any_form_becomes_the_intended_fraction(
    eps: Any, shown: str, mean_model: nn.Module, tmp_path: Path
) -> None:
    assert evaluate(mean_model, eps=eps, out=tmp_path).eps == shown


def test_a_radius_as_a_float_means_the_same_for_a_named_model(tmp_path: Path) -> None:
    record = satbench.evaluate(
        "fmnist-sat-tiny-relu-s0", attacks="pgd-1", eps=8 / 255, n_examples=2, out=tmp_path
    )

    assert record.eps == EIGHT


# The folder of the record


@pytest.mark.parametrize("below", ["", "/sub", "/sub/sub"])
def test_a_file_is_refused_as_the_output_folder(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SatbenchError, match=r"^expected a folder to write to, .*file' is a file$"):
        evaluate(Untouched(), out=f"{tmp_path / 'file'}{below}")


def test_the_name_of_a_file_is_refused_as_the_output_folder(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"^expected a folder .*: it is the name of a file$"):
        evaluate(Untouched(), out=tmp_path / "record.json")


@pytest.mark.parametrize("name", ["n" * 300, "é" * 300, "字" * 300, "a/b\\c:*?" * 60, "x" * 190])
def test_a_long_name_is_complete_in_the_record_and_cut_in_file_names(
    name: str, mean_model: nn.Module, tmp_path: Path
) -> None:
    record = evaluate(mean_model, name=name, out=tmp_path)
    again = evaluate(mean_model, name=name, out=tmp_path)
    files = [path.name for path in tmp_path.iterdir() if path.is_file()]

    assert (record.model.name, again.found) == (name, True)
    assert len(files) == 2
    assert all(len(file.encode()) < 240 and record.identity[:8] in file for file in files)


def test_without_a_folder_the_files_are_deleted_with_the_record(
    mean_model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    record = evaluate(mean_model, out=None)
    assert record.path is not None

    assert len(read_witnesses(witnesses_path(record.path)).indices) == 2
    del record
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]


def test_without_a_folder_a_failed_evaluation_leaves_no_file(
    mean_model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SatbenchError):
        evaluate(mean_model, attacks="pdg", out=None)

    assert list(tmp_path.iterdir()) == []


def test_the_path_of_a_record_is_not_in_its_file(mean_model: nn.Module, tmp_path: Path) -> None:
    record = evaluate(mean_model, out=tmp_path)
    (path,) = tmp_path.glob("*.json")

    assert record.path == path
    assert not {"path", "found"} & set(record.to_json().split('"'))
    assert {"path", "found"} <= {field.name for field in fields(Record)}


@pytest.mark.parametrize("key", ["path", "found"])
def test_a_record_file_with_a_path_is_refused(
    key: str, mean_model: nn.Module, tmp_path: Path
) -> None:
    path = evaluate(mean_model, out=tmp_path).path
    assert path is not None
    path.write_text(path.read_text().replace('{\n "identity"', f'{{\n "{key}": 1,\n "identity"'))
    with pytest.raises(SatbenchError, match=f"in no file, {key}$"):
        read_record(path)


LONG = "x" * 300
COMMANDS = [
    ("verify", f"{LONG}.json"),
    ("verify", "."),
    ("merge", f"{LONG}.json", "b.json"),
    ("challenge", f"{LONG}.json", "--attack", "pgd"),
    ("verify", "a.json", "--data", f"{LONG}.npz"),
    ("eval", "--model", f"{LONG}.json"),
    ("eval", "--model", f"{LONG}.pt", "--arch", "tiny", "--activation", "relu"),
    ("eval", "--model", "fmnist-sat-tiny-relu-s0", "--out", LONG),
    ("eval", "--model", "fmnist-sat-tiny-relu-s0", "--dataset", f"imagefolder:{LONG}"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words).replace(LONG, "LONG"))
def test_the_command_line_refuses_a_name_too_long_for_a_file_in_one_sentence(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from satbench.cli import cli

    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, list(words))

    assert isinstance(done.exception, SatbenchError)
    assert "\n" not in str(done.exception)
    assert list(tmp_path.iterdir()) == []
