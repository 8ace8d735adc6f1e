"""The output of `satbench challenge`, `satbench merge` and `satbench verify --all`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import satbench
from satbench.board.definition import board_definition
from satbench.cli import main
from satbench.core.content import content_folder
from satbench.core.threat import Threat
from satbench.data import Dataset, load_dataset
from satbench.evaluation.run import Evaluation, run_evaluation
from satbench.models import load_model, request_model
from satbench.proofs.either import committed_files, verify_file
from satbench.proofs.verification import committed_records, verify_record
from satbench.records.certificates import CERTIFIED, read_certificate
from satbench.records.record import read_record, write_record
from satbench.records.witnesses import witnesses_path

N = 20
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _read_the_images_once(monkeypatch: pytest.MonkeyPatch, fashion: Dataset) -> None:
    for module in ("evaluation.given", "proofs.challenging"):
        monkeypatch.setattr(f"satbench.{module}.load_dataset", lambda *_, **__: fashion)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = load_model(request_model("fmnist-sat-tiny-relu-s0"), 10)
    images = load_dataset("fashion-mnist", "test", N)
    evaluation = Evaluation(images, Threat.parse("linf:0.1"), ["pgd-1"])
    out = tmp_path_factory.mktemp("original")
    return run_evaluation(model.module, model.info, evaluation, torch.device("cpu"), out).path


@pytest.fixture
def board(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the committed leaderboard by a folder of one record, and return the record."""
    folder = tmp_path / "records"
    folder.mkdir()
    for one in (original, witnesses_path(original)):
        (folder / one.name).write_bytes(one.read_bytes())
    made = replace(board_definition("fashion-mnist-linf-0.1"), folder=tmp_path)
    for module in ("verification", "either"):
        monkeypatch.setattr(f"satbench.proofs.{module}.board_definitions", lambda: [made])
    return folder / original.name


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return a function that runs a command line: -> exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["satbench", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


def test_challenge_prints_the_number_of_broken_images(board: Path, run: Run) -> None:
    code, out, _ = run("challenge", board, "--attack", "pgd-10", "--by", "me", "--json")
    told = json.loads(out)
    record = read_record(Path(told["record"]))

    assert (code, told["survivors"]) == (0, record.surviving())
    assert told["survivors"] < told["survivors_before"] == read_record(board).surviving()
    assert run("challenge", board, "--attack", "pgd-10", "--by", "me", "--quiet") == (
        0,
        f"fmnist-sat-tiny-relu-s0: pgd-10 broke {told['survivors_before'] - told['survivors']} of "
        f"{told['survivors_before']} survivors; robust accuracy falls from "
        f"{told['survivors_before'] / N:.1%} to {told['survivors'] / N:.1%}\n"
        f"found {told['record']}\n",
        "",
    )


def test_challenge_says_if_it_broke_no_image(board: Path, run: Run, fashion: Dataset) -> None:
    np.save("clean.npy", fashion.images[:N])
    left = read_record(board).surviving()
    code, out, _ = run("challenge", board, "--images", "clean.npy")

    assert code == 0
    assert f" broke none of {left} survivors; robust accuracy stays at {left / N:.1%}" in out


@pytest.mark.parametrize(
    "words", [(), ("--attack", "pgd-2", "--images", "x.npy")], ids=["neither", "both"]
)
def test_challenge_needs_either_attacks_or_images(
    words: tuple[str, ...], board: Path, run: Run
) -> None:
    code, _, err = run("challenge", board, *words)

    assert code == 2
    assert "--images FILE" in err


def test_an_unknown_attack_is_refused_with_the_nearest(board: Path, run: Run) -> None:
    assert run("challenge", board, "--attack", "pdg-10") == (
        2,
        "",
        "satbench: unknown attack 'pdg': did you mean 'pgd'?\n",
    )


def test_merge_prints_the_remaining_robust_accuracy(board: Path, run: Run) -> None:
    out = json.loads(run("challenge", board, "--attack", "pgd-10", "--json")[1])
    left = out["survivors"]
    code, said, _ = run("merge", board, out["record"])

    assert code == 0
    assert said.startswith(
        f"fmnist-sat-tiny-relu-s0: robust accuracy {out['survivors_before'] / N:.1%}, "
        f"{left / N:.1%} separately, {left / N:.1%} merged\nwrote "
    )


def test_one_record_cannot_be_merged(board: Path, run: Run) -> None:
    assert run("merge", board) == (
        2,
        "",
        "satbench: expected two or more records to merge, got 1\n",
    )


def test_verify_all_checks_the_board_and_its_reference(board: Path, run: Run) -> None:
    reference = board.parent.parent / "reference"
    reference.mkdir()
    for one in (board, witnesses_path(board)):
        (reference / one.name).write_bytes(one.read_bytes())
    code, out, _ = run("verify", "--all")
    witnesses, left = verify_record(board).witnesses, read_record(board).surviving()
    broken = N - left
    confirmed = (
        f"robust accuracy {100 * left / N:.1f} %, {left} of {N}, confirmed as an upper bound: "
        f"{broken} of {broken} broken images proven broken; {left} survivors are "
        "claimed, not proven"
    )

    assert code == 0
    assert out.splitlines() == [
        f"{board}: {confirmed}; {N} verdicts, {witnesses} witnesses: all hold",
        f"{reference / board.name}: {confirmed}; {N} verdicts, {witnesses} witnesses: all hold",
        f"2 of 2 records hold, with {2 * witnesses} witnesses in all: {2 * broken} of "
        f"{2 * broken} broken images proven broken; {2 * left} survivors are claimed, "
        "not proven",
    ]


def test_verify_all_fails_if_one_record_does_not_verify(board: Path, run: Run) -> None:
    write_record(replace(read_record(board), eps="0.2"), board)
    code, out, _ = run("verify", "--all")

    assert code == 1
    assert "the identity is not that of the inputs" in out
    assert out.splitlines()[-1].startswith("0 of 1 records hold")


def test_verify_all_continues_after_a_record_that_cannot_be_read(board: Path, run: Run) -> None:
    (board.parent / "a.json").write_text("{")
    code, out, _ = run("verify", "--all")

    assert code == 1
    assert "is not JSON" in out
    assert out.splitlines()[-1].startswith("1 of 2 records hold")


def test_verify_all_counts_certificates_apart_from_records(board: Path, run: Run) -> None:
    folder = board.parent.parent / "certificates"
    name = "fmnist-sat-tiny-relu-s0"
    made = satbench.certify(name, eps="0.0001", method="ibp", n_examples=5, out=folder)
    (folder / "torn.json").write_text("{")
    out = run("verify", "--all")[1].splitlines()
    proven = sum(verdict == CERTIFIED for verdict in read_certificate(made.path).verdicts)

    assert proven > 0
    assert out[-2].startswith("1 of 1 records hold, with ")
    assert out[-1] == (
        f"1 of 2 certificates hold, with {proven} proofs in all: {proven} of {proven} certified "
        "images proven certified"
    )


def test_verify_needs_records_or_all(board: Path, run: Run) -> None:
    assert [run("verify")[0], run("verify", board, "--all")[0]] == [2, 2]


def test_all_committed_records_are_found() -> None:
    found = committed_records()
    there = {
        path
        for folder in ("records", "reference")
        for path in content_folder("leaderboard").glob(f"*/{folder}/*.json")
    }

    assert {"records", "reference"} == {path.parent.name for path in found}
    assert sorted(there) == sorted(found)
    assert len(found) >= 320  # a contributor may add a board with records
    assert len(set(committed_files()) - set(found)) >= 4


@pytest.mark.slow
def test_every_committed_witness_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("satbench.evaluation.given.load_dataset", load_dataset)

    assert {path.name: verify_file(path).faults for path in committed_files()} == {
        path.name: [] for path in committed_files()
    }
