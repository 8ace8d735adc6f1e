"""Recheck records: everything except the broken images follows from record and seed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from satbench.core.errors import SatbenchError
from satbench.core.stats.intervals import unseen_bound
from satbench.records.rechecks import (
    RecheckRecord,
    check_recheck,
    drawn_survivors,
    read_recheck,
    read_rechecks,
    record_digest,
    write_recheck,
)
from satbench.records.record import Record

VERDICTS = [-1, 0, 1, *[-1] * 17]


@pytest.fixture
def record(make_record) -> Record:
    made: Record = make_record(VERDICTS)
    return made


def recheck_of(record: Record, images: int = 6, broken: int = 0, seed: int = 5) -> RecheckRecord:
    sampled = drawn_survivors(record, images, seed).tolist()
    bound = unseen_bound(broken, len(sampled), record.surviving())
    return RecheckRecord(
        record=record.identity,
        record_digest=record_digest(record),
        model=record.model.name,
        n=record.n,
        survivors=record.surviving(),
        sampled=sampled,
        broken=sampled[:broken],
        attacks=["fast(version=2,source=none)"],
        seed=seed,
        breakable=bound,
        by="the keeper",
        finished="2026-11-29T00:00:00+00:00",
        satbench="0.1",
        protocol=2,
    )


def test_a_recheck_is_read_as_it_was_written(record: Record, tmp_path: Path) -> None:
    made = recheck_of(record, broken=2)
    write_recheck(made, tmp_path / "r.json")

    assert read_recheck(tmp_path / "r.json") == replace(made, path=tmp_path / "r.json")
    assert list(check_recheck(made, record)) == []


def test_the_sample_is_of_survivors_and_its_seed_decides_which(record: Record) -> None:
    drawn = [drawn_survivors(record, 6, seed).tolist() for seed in (1, 1, 2)]

    assert drawn[0] == drawn[1] != drawn[2]
    assert all(record.verdicts[image] == -1 for image in drawn[2])
    assert len(drawn_survivors(record, 99, 1)) == record.surviving()
    with pytest.raises(SatbenchError, match="no survivor"):
        drawn_survivors(replace(record, verdicts=[0] * 20), 5, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"record_digest": "0" * 64},
        {"n": 21},
        {"survivors": 17},
        {"sampled": []},
        {"seed": 6},
        {"broken": [1]},
        {"breakable": 0},
        {"breakable": 18},
    ],
    ids=str,
)
def test_what_does_not_follow_from_record_and_seed_is_found(
    record: Record, change: dict[str, object]
) -> None:
    assert len(list(check_recheck(replace(recheck_of(record), **change), record))) == 1  # type: ignore[arg-type]


def test_a_sample_chosen_by_hand_and_an_image_that_fell_twice_are_found(record: Record) -> None:
    made = recheck_of(record)
    chosen = replace(made, sampled=[*made.sampled[1:], *made.sampled[:1]])
    twice = replace(made, broken=[made.sampled[0]] * 2)

    assert len(list(check_recheck(chosen, record))) == 1
    assert len(list(check_recheck(twice, record))) == 1


def test_a_recheck_is_of_one_record_to_the_byte(record: Record) -> None:
    slower = replace(record, environment=replace(record.environment, clean_seconds=1.0))

    assert list(check_recheck(recheck_of(record), slower))


def test_bad_files_are_refused_or_left_out(record: Record, tmp_path: Path) -> None:
    write_recheck(recheck_of(record), tmp_path / "good.json")
    values = json.loads((tmp_path / "good.json").read_text())
    bad = ("", "[]", json.dumps({**values, "path": "/etc/passwd"}), json.dumps({"kind": "recheck"}))
    for number, text in enumerate((*bad, json.dumps({**values, "sampled": [1.5]}))):
        (tmp_path / f"bad{number}.json").write_text(text)
    left_out: list[str] = []
    found = read_rechecks(tmp_path, left_out)

    assert (len(found), len(left_out)) == (1, 5)
    with pytest.raises(SatbenchError):
        read_rechecks(tmp_path)
    assert read_rechecks(tmp_path / "none") == []
