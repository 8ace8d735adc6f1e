"""A record is run again: on the same machine nothing differs, and a changed part is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import satbench
from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.data import Dataset
from satbench.evaluation.given import Given
from satbench.proofs.reproducing import Reproduction, reproduce_record
from satbench.records.record import (
    Record,
    identity_of,
    inputs_of,
    read_record,
    write_record,
)
from satbench.records.witnesses import (
    Witnesses,
    read_witnesses,
    witnesses_path,
    write_witnesses,
)

MODEL, N = "fmnist-sat-tiny-relu-s0", 30


@pytest.fixture(autouse=True)
def _read_the_images_once(monkeypatch: pytest.MonkeyPatch, fashion: Dataset) -> None:
    monkeypatch.setattr("satbench.evaluation.given.load_dataset", lambda *_, **__: fashion)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    attacks = ["pgd-2", "square(queries=20)"]
    made = satbench.evaluate(MODEL, attacks=attacks, n_examples=N, eps="0.1", out=out, seed=3)
    assert made.path is not None
    return made.path


@pytest.fixture
def copy(record: Path, tmp_path: Path) -> Path:
    for path in (record, witnesses_path(record)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / record.name


def sealed(record: Record, path: Path) -> None:
    write_record(replace(record, identity=identity_of(inputs_of(record))), path)


def test_on_the_same_machine_nothing_differs(record: Path) -> None:
    done = reproduce_record(Reproduction(record))

    assert done.is_same
    assert (done.images, done.witnesses, done.counts, done.flags) == ((), (), (), ())
    assert done.again == replace(done.record, environment=done.again.environment)


@pytest.mark.slow
def test_a_run_that_stopped_at_an_interval_and_challenges_are_reproduced(
    record: Path, tmp_path: Path
) -> None:
    given = {"attacks": "pgd-2", "n_examples": N, "eps": "0.1", "out": tmp_path}
    until = satbench.evaluate(MODEL, until="100%", **given)
    first = satbench.challenge(record, attacks="pgd-5", by="me", seed=4, out=tmp_path)
    second = satbench.challenge(first, attacks="pgd-10", by="you", seed=5, out=tmp_path)

    for one in (until, first, second):
        assert one.path is not None
        done = reproduce_record(Reproduction(one.path))
        assert done.is_same, done
        assert done.again.identity == one.identity


def test_a_changed_verdict_or_witness_is_named_by_image(copy: Path) -> None:
    made, kept = read_record(copy), read_witnesses(witnesses_path(copy))
    hidden = made.verdicts.index(1)
    changed = int(kept.indices[kept.indices != hidden][0])
    images = kept.images.copy()
    images[kept.indices == changed] = 0.5
    left = kept.indices != hidden
    witnesses = Witnesses(kept.indices[left], images[left])
    verdicts = [-1 if index == hidden else one for index, one in enumerate(made.verdicts)]
    first, second = made.stages
    stages = [
        replace(first, broken=first.broken - 1),
        replace(second, attacked=second.attacked + 1),
    ]
    write_witnesses(witnesses, witnesses_path(copy))
    told = replace(
        made, verdicts=verdicts, stages=stages, witnesses_digest=witnesses.digest, diagnosis=None
    )
    sealed(told, copy)
    ran = CliRunner().invoke(cli, ["reproduce", str(copy), "--quiet", "--json"])
    done = json.loads(ran.output)

    assert ran.exit_code == 1
    assert done["images"] == [{"image": hidden, "then": "nothing", "now": "pgd"}]
    assert done["witnesses"] == [changed]
    assert done["survivors"] == done["survivors_here"] + 1
    assert len(done["counts"]) == 2


def test_changed_passes_and_flags_are_named(copy: Path) -> None:
    made = read_record(copy)
    first, second = made.stages
    assert made.diagnosis is not None
    cheaper = [replace(first, forwards=first.forwards - 1), second]
    sealed(replace(made, stages=cheaper, diagnosis=replace(made.diagnosis, flags=[])), copy)
    done = reproduce_record(Reproduction(copy))
    assert done.counts == (
        f"stage 1, pgd: forwards {first.forwards - 1} in the record, {first.forwards} here",
    )
    assert len(done.flags) == len(made.diagnosis.flags)

    sealed(replace(made, seed=99), copy)
    assert not reproduce_record(Reproduction(copy)).is_same


def test_a_difference_of_the_machine_is_reported_but_does_not_count(copy: Path) -> None:
    made = read_record(copy)
    surroundings = replace(made.environment, torch="1.0", device="abacus")
    sealed(replace(made, environment=surroundings), copy)
    done = reproduce_record(Reproduction(copy))

    assert done.is_same
    assert {name: then for name, (then, _) in done.surroundings.items()} == {
        "torch": "1.0",
        "device": "abacus",
    }


def test_a_record_without_witnesses_is_not_reported_as_reproduced(copy: Path) -> None:
    witnesses_path(copy).unlink()
    done = reproduce_record(Reproduction(copy))

    assert (done.images, done.witnesses, done.is_same) == ((), None, False)


def test_records_that_cannot_be_run_again_are_refused(
    copy: Path, record: Path, tmp_path: Path, fashion: Dataset
) -> None:
    made = read_record(copy)
    other = satbench.evaluate(
        MODEL, attacks="pgd-3", n_examples=N, eps="0.1", out=tmp_path / "other"
    )
    merged = satbench.merge([record, other], out=tmp_path / "merged")
    handed = tmp_path / "images.npy"
    np.save(handed, fashion.pixels(np.arange(N)))
    third = satbench.challenge(record, images=handed, out=tmp_path / "handed")
    unknown, older = tmp_path / "unknown.json", tmp_path / "older.json"
    stages = [replace(made.stages[0], attack="mine(steps=3)"), made.stages[1]]
    sealed(replace(made, stages=stages, suite=["mine(steps=3)", made.suite[1]]), unknown)
    stages = [replace(one, origin="0" * 64, seed=3, protocol=1) for one in made.stages]
    sealed(replace(made, stages=stages), older)
    cases = {
        "merged": merged.path,
        "from elsewhere": third.path,
        "--trust mine": unknown,
        "older protocol": older,
    }
    for said, path in cases.items():
        assert path is not None
        with pytest.raises(SatbenchError, match=said):
            reproduce_record(Reproduction(path))


def test_another_model_is_refused(copy: Path) -> None:
    given = Given(model="fmnist-sat-tiny-silu-s0")
    with pytest.raises(SatbenchError, match="the weights are not the record's"):
        reproduce_record(Reproduction(copy, given=given))
