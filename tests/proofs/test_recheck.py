"""A recheck attacks a random sample of the claimed survivors of a record again."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import hypergeom

import satbench
from satbench.board.marks import MOST_POINTS
from satbench.board.publish import read_board
from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.data import Dataset
from satbench.diagnosis.diagnose import images_to_examine
from satbench.proofs.rechecking import Recheck, lowest_unverified, recheck_record
from satbench.records.rechecks import check_recheck, read_rechecks
from satbench.records.record import read_record, write_record
from satbench.records.witnesses import Witnesses, witnesses_path, write_witnesses

SHIPPED, N = "fmnist-sat-tiny-relu-s0", 60


@pytest.fixture(autouse=True)
def _read_the_images_once(monkeypatch: pytest.MonkeyPatch, fashion: Dataset) -> None:
    monkeypatch.setattr("satbench.evaluation.given.load_dataset", lambda *_, **__: fashion)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("honest")
    record = satbench.evaluate(SHIPPED, attacks="pgd-10", n_examples=N, eps="0.1", out=out)
    assert record.path is not None
    return record.path


@pytest.fixture
def hidden(honest: Path, tmp_path: Path) -> Path:
    """A record that hides all broken images, with matching passes; it verifies."""
    record = read_record(honest)
    verdicts = [min(verdict, 0) or -(verdict != 0) for verdict in record.verdicts]
    left = sum(verdict == -1 for verdict in verdicts)
    (stage,) = record.stages
    stage = replace(stage, attacked=left, broken=0, forwards=11 * left, backwards=10 * left)
    nothing = Witnesses(np.empty(0, np.int64), np.empty((0, 1, 28, 28), np.float32))
    path = tmp_path / "hidden.json"
    assert record.diagnosis is not None
    forged = replace(
        record,
        verdicts=verdicts,
        stages=[stage],
        witnesses_digest=nothing.digest,
        diagnosis=replace(record.diagnosis, images=images_to_examine(22 * left, left, left)),
        path=None,
    )
    write_witnesses(nothing, witnesses_path(path))
    write_record(forged, path)
    assert satbench.verify(path).confirmed
    return path


def test_the_same_attack_breaks_almost_none_of_its_survivors(honest: Path) -> None:
    done = recheck_record(Recheck(honest, images=30, seed=5))
    record = read_record(honest)

    assert done.survivors == record.surviving()
    assert len(done.sampled) == 30
    assert {record.verdicts[place] for place in done.sampled} == {-1}
    assert set(done.broken) <= set(done.sampled)
    assert len(done.broken) <= 1


def test_the_bound_is_the_hypergeometric_bound(honest: Path) -> None:
    done = recheck_record(Recheck(honest, images=20, seed=5))
    k, m, total = len(done.broken), 20, done.survivors
    inside = [d for d in range(k, total - (m - k) + 1) if hypergeom.cdf(k, total, d, m) >= 0.05]

    assert done.breakable == max(inside)
    assert done.too_high == max(inside) / N


def test_a_sample_of_all_survivors_gives_an_exact_bound(honest: Path) -> None:
    done = recheck_record(Recheck(honest, images=10_000, seed=5))

    assert len(done.sampled) == done.survivors
    assert done.breakable == len(done.broken)


def test_a_recheck_breaks_hidden_images(hidden: Path) -> None:
    told = read_record(hidden).surviving()
    done = recheck_record(Recheck(hidden, images=told, attacks=("pgd-10",), seed=1))
    honest_left = done.survivors - len(done.broken)

    assert len(done.broken) >= 5
    assert done.survivors == told > honest_left


def test_the_seed_is_random_and_can_be_given(honest: Path) -> None:
    drawn = [recheck_record(Recheck(honest, images=5, attacks=("pgd-1",))) for _ in range(2)]
    again = recheck_record(Recheck(honest, images=5, attacks=("pgd-1",), seed=drawn[0].seed))

    assert drawn[0].seed != drawn[1].seed
    assert again == drawn[0]


def test_a_record_that_does_not_verify_is_not_rechecked(honest: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    write_record(replace(read_record(honest), seed=9), path)
    with pytest.raises(SatbenchError, match=r"does not hold"):
        recheck_record(Recheck(path))
    with pytest.raises(SatbenchError, match="expected 1 image or more"):
        Recheck(honest, images=0)


def test_the_command_prints_the_bound_and_exits_with_1_if_it_broke_an_image(
    honest: Path, hidden: Path
) -> None:
    words = ["--images", "40", "--seed", "1", "--attack", "pgd-10", "--quiet"]
    done = CliRunner().invoke(cli, ["recheck", str(hidden), *words])
    told = json.loads(CliRunner().invoke(cli, ["recheck", str(hidden), *words, "--json"]).output)

    assert done.exit_code == 1
    assert f"at most {told['breakable']}," in done.output
    assert f"{100 * told['too_high']:.1f} points" in done.output
    assert re.search(r"satbench challenge .*hidden.json --attack .* --seed 1", done.output)
    assert told["seed"] == 1
    quiet = ["--images", "5", "--attack", "pgd(steps=1,start=clean)", "--quiet"]
    assert CliRunner().invoke(cli, ["recheck", str(honest), *quiet]).exit_code == 0


@pytest.mark.slow
def test_a_kept_recheck_gives_the_row_its_mark(honest: Path, tmp_path: Path) -> None:
    records, rechecks = tmp_path / "records", tmp_path / "rechecks"
    records.mkdir()
    record = read_record(honest)
    for path in (honest, witnesses_path(honest)):
        (records / path.name).write_bytes(path.read_bytes())
    words = ["recheck", str(records / honest.name), "--images", "60", "--attack", "fast"]
    words += ["--seed", "3", "--by", "the keeper", "--out", str(rechecks), "--quiet", "--json"]
    ran = CliRunner().invoke(cli, words)
    told = json.loads(ran.output)
    (kept,) = read_rechecks(rechecks)
    board = read_board(records)
    (row,) = board.benchmarks[0].rows

    assert ran.exit_code == bool(told["broken"])
    assert kept.path == Path(told["kept"])
    assert list(check_recheck(kept, record)) == []
    assert (kept.sampled, kept.seed, kept.by) == (told["sampled"], 3, "the keeper")
    assert row.checked is not None
    assert (row.checked.sampled, row.checked.broken) == (record.surviving(), len(told["broken"]))
    assert row.mark == ("verified" if row.checked.too_high <= MOST_POINTS else "unverified")


def test_a_recheck_of_a_board_uses_the_lowest_record_of_each_model(make_record) -> None:
    low = replace(make_record([0, 1, -1, -1]), path=Path("low"))
    lower = replace(make_record([0, 1, 1, -1], seed=1), path=Path("lower"))
    other = replace(make_record([0, -1, -1, -1], weights="other"), path=Path("other"))
    gone = replace(make_record([0, 1, 1, 1], weights="gone"), path=Path("gone"))
    records = [low, lower, other, gone]

    assert sorted(map(str, lowest_unverified(records, []))) == ["lower", "other"]


def test_the_command_needs_a_record_or_a_board(honest: Path) -> None:
    assert CliRunner().invoke(cli, ["recheck"]).exit_code == 2
    assert CliRunner().invoke(cli, ["recheck", str(honest), "--board", "x"]).exit_code == 2
