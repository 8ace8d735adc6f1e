from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from satbench.evaluation.report import brief_table_of, rows_of, summary_of, table_of
from satbench.records.flags import Flag
from satbench.records.record import (
    DatasetInfo,
    Diagnosis,
    Environment,
    ModelInfo,
    Record,
    Sequential,
    StageResult,
)

NAME = "fmnist-sat-tiny-parametric-softplus-s0"
FAST = "fast(version=2,source=none)"
FLAG = Flag("zero-gradients", 3, 9, "the gradient is 0", "run square")


def _record(*specs: str, **more) -> Record:
    stages = [StageResult(spec, "", 9, 0, 100, 50, 7, 3) for spec in specs]
    return Record(
        identity="0" * 64,
        model=ModelInfo(NAME, "zoo", "tiny", "silu", 9, "0", {}),
        dataset=DatasetInfo("fashion-mnist", "test", 10, 10, "0"),
        norm="linf",
        eps="0.1",
        seed=0,
        suite=list(specs),
        stages=stages,
        verdicts=[0] + [-1] * 9,
        witnesses_digest="0",
        environment=Environment("0", "0", "0", "t", "cpu", 1, 8, "n", 0.0, [75.0] * len(stages)),
        **more,
    )


def _printed(renderable) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


@pytest.mark.parametrize("show", [table_of, brief_table_of])
def test_a_model_name_of_38_letters_fits_on_one_line(show) -> None:
    assert NAME in _printed(show([_record(FAST)]))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (FAST, " fast "),
        ("fast(version=2,source=a+b+c)", " fast "),
        ("fast(version=1,source=none)", " fast(version=1) "),
        ("images(sha256=0123456789abcdef0123456789abcdef)", " images(sha256=0123456789ab…) "),
    ],
)
def test_the_name_of_an_attack_is_shortened_to_fit_its_column(spec, expected) -> None:
    assert expected in _printed(table_of([_record(spec)]))


def test_many_surrogates_are_shown_as_a_count() -> None:
    assert "source=4 models" in _printed(table_of([_record("transfer(source=a+b+c+d)")]))


def test_a_flag_is_a_line_below_the_table() -> None:
    record = _record(FAST, diagnosis=Diagnosis([FLAG], 0, 0))

    expected = "flag zero-gradients (3 of 9 images): the gradient is 0; run square"
    assert expected == _printed(table_of([record])).splitlines()[-1]


def test_the_report_of_a_record_without_diagnosis_mentions_no_flags() -> None:
    assert "flag" not in _printed(table_of([_record(FAST)]))


def test_a_run_that_stopped_early_shows_its_interval_and_number_of_images() -> None:
    record = _record(FAST, sequential=Sequential(0.02, 0.41, 0.43))
    record = replace(record, dataset=replace(record.dataset, population=10_000))

    expected = (
        "stopped after 10 of 10,000 images, in random order: robust accuracy on all of them is "
        "41.0% to 43.0%"
    )
    assert expected in " ".join(_printed(table_of([record])).split())


AUDIT = "audit(sample=3)"


def test_an_audited_record_shows_its_distance_to_autoattack_in_points() -> None:
    record = _record(FAST, AUDIT)
    parts = [
        StageResult(AUDIT, "weakest/apgd-ce", 5, 0, 1, 1, passed_over=4),
        StageResult(AUDIT, "sample/apgd-ce", 3, 0, 1, 1, passed_over=6),
    ]
    environment = replace(record.environment, stage_seconds=[0.0] * 3)
    record = replace(record, stages=[record.stages[0], *parts], environment=environment)

    assert "AutoAttack-equivalent up to" in _printed(table_of([record]))


def test_passes_of_surrogates_are_added_to_the_others_in_the_table() -> None:
    fast = next(line for line in _printed(table_of([_record(FAST)])).splitlines() if "fast" in line)

    assert " 107 + 53 " in fast


def test_clean_costs_one_forward_per_image_which_overall_includes() -> None:
    clean, fast, overall = rows_of(_record(FAST))

    assert (clean.forwards, clean.backwards) == (10, 0)
    assert (overall.forwards, overall.backwards) == (10 + fast.forwards, fast.backwards)


def test_the_rows_hold_the_passes_of_surrogates_separately() -> None:
    overall = rows_of(_record(FAST))[-1]

    assert (110, 50, 7, 3) == (
        overall.forwards,
        overall.backwards,
        overall.source_forwards,
        overall.source_backwards,
    )


@pytest.mark.parametrize(
    ("diagnosis", "expected"),
    [
        (None, None),
        (Diagnosis([], 0, 0), []),
        (Diagnosis([FLAG], 0, 0), [vars(FLAG)]),
    ],
)
def test_the_json_distinguishes_no_flags_from_no_diagnosis(diagnosis, expected) -> None:
    assert expected == summary_of(_record(FAST, diagnosis=diagnosis), "p")["flags"]


def test_the_json_has_the_interval_of_a_run_that_stopped_early() -> None:
    record = _record(FAST, sequential=Sequential(0.02, 0.41, 0.43))

    expected = {"width": 0.02, "low": 0.41, "high": 0.43, "population": 0}
    assert expected == summary_of(record, "p")["sequential"]


def test_replaced_gradients_are_reported() -> None:
    record = _record(FAST, replacements={"0.round": "identity"})

    assert "replaced the gradient of 0.round by identity" in _printed(table_of([record]))
    assert {"0.round": "identity"} == summary_of(record, "r.json")["replacements"]
