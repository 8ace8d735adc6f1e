"""Certificates beside a board: the column, and a certificate that a record contradicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from satbench.board.board import build_board
from satbench.board.publish import read_board
from satbench.core.errors import SatbenchError
from satbench.records.certificates import Certificate, certificate_identity, write_certificate
from satbench.records.certified import contradiction
from satbench.records.flags import Flag
from satbench.records.record import Diagnosis, Record

MakeRecord = Callable[..., Record]


def certificate(record: Record, verdicts: list[int], eps: str | None = None) -> Certificate:
    made = Certificate(
        identity="",
        model=record.model,
        dataset=record.dataset,
        norm=record.norm,
        eps=eps or str(record.eps),
        method="ibp",
        seconds=None,
        verdicts=verdicts,
        margins=[0.5 if verdict == 1 else None for verdict in verdicts],
        out_of_time=0,
        proofs_digest="0" * 64,
        environment=record.environment,
    )
    identity = certificate_identity(made.model, made.dataset, made.threat, "ibp", None)
    return replace(made, identity=identity)


def test_a_row_has_the_share_of_images_that_a_certificate_covers(make_record: MakeRecord) -> None:
    record = make_record([-1, -1, 1, 0])
    once, twice = certificate(record, [1, -1, -1, 0]), certificate(record, [-1, 1, -1, 0])
    (benchmark,) = build_board([record], certificates=[once]).benchmarks
    assert benchmark.rows[0].value("certified") == 0.25
    assert benchmark.groups[0].summary("certified").mean == 0.25  # type: ignore[union-attr]
    (benchmark,) = build_board([record], certificates=[once, twice]).benchmarks
    assert benchmark.rows[0].value("certified") == 0.5
    (benchmark,) = build_board([record]).benchmarks
    assert benchmark.rows[0].value("certified") is None


@pytest.mark.parametrize(("verdicts", "flagged"), [([1] * 30, False), ([1] * 29 + [-1], True)])
def test_a_number_that_a_certificate_covers_whole_is_not_in_doubt(
    verdicts: list[int], flagged: bool, make_record: MakeRecord
) -> None:
    sign = Flag("zero-gradient", 30, 30, "the gradient is 0", "run square")
    record = make_record([-1] * 30 + [1] * 9 + [0])
    record = replace(record, diagnosis=Diagnosis([sign], 0, 0))
    (benchmark,) = build_board([record]).benchmarks
    assert "zero-gradient" in {flag.name for flag in benchmark.rows[0].flags or ()}

    covered = [certificate(record, [*verdicts, *[-1] * 9, 0])]
    (benchmark,) = build_board([record], certificates=covered).benchmarks
    found = {flag.name for flag in benchmark.rows[0].flags or ()}
    assert ("zero-gradient" in found) == flagged


def test_a_certificate_of_another_subject_gives_no_number(make_record: MakeRecord) -> None:
    record = make_record([-1, -1, 1, 0])
    told = certificate(record, [1, -1, -1, 0])
    others = [
        certificate(record, [1, -1, -1, 0], "1/300"),
        replace(told, norm="l2"),
        replace(told, model=replace(told.model, weights_digest="f" * 64)),
        replace(told, model=replace(told.model, activation="mish")),
        replace(told, dataset=replace(told.dataset, digest="f" * 64)),
    ]
    (benchmark,) = build_board([record], certificates=others).benchmarks
    assert benchmark.rows[0].value("certified") is None


def test_a_certified_image_that_a_record_has_broken_is_refused(make_record: MakeRecord) -> None:
    record = make_record([-1, -1, 1, 0])
    wrong = certificate(record, [1, 1, 1, 0])
    with pytest.raises(SatbenchError, match=r"image 2 .* certified"):
        build_board([record], certificates=[wrong])
    left_out: list[str] = []
    (benchmark,) = build_board([record], left_out=left_out, certificates=[wrong]).benchmarks
    assert len(left_out) == 1
    assert benchmark.rows[0].value("certified") is None


@pytest.mark.parametrize("is_of_a_row", [True, False])
def test_a_certificate_of_no_row_is_named(
    is_of_a_row: bool, make_record: MakeRecord, tmp_path: Path
) -> None:
    record = make_record([-1, -1, 1, 0])
    told = certificate(record, [1, -1, -1, 0])
    weights = told.model.weights_digest if is_of_a_row else "f" * 64
    model = replace(told.model, weights_digest=weights)
    identity = certificate_identity(model, told.dataset, told.threat, "ibp", None)
    for folder in ("records", "certificates"):
        (tmp_path / folder).mkdir()
    (tmp_path / "records" / "r.json").write_text(record.to_json())
    write_certificate(
        replace(told, model=model, identity=identity), tmp_path / "certificates" / "c.json"
    )
    left_out: list[str] = []
    read_board(tmp_path / "records", left_out)
    assert len(left_out) == (not is_of_a_row)


def test_only_a_break_within_the_certified_ball_contradicts(make_record: MakeRecord) -> None:
    record = make_record([-1, 1, 1, 0])
    assert contradiction(certificate(record, [1, 1, -1, 0], "0.9"), record)
    assert not contradiction(certificate(record, [1, 1, -1, 0], "0.0001"), record)
    assert contradiction(certificate(record, [1, -1, -1, 1]), record)
