"""No curve is above the known results of its model: records, and attacks at its marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from satbench.cli import cli
from satbench.core.content import content_folder
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.curve.run import CurvePlan, Measured, measure_curve
from satbench.data import Dataset
from satbench.engine.judge import predict
from satbench.evaluation.run import Evaluation, run_evaluation
from satbench.models import LoadedModel, load_model, request_model
from satbench.records.curves import marks_of, read_curve
from satbench.records.record import SURVIVED, Record, read_record, write_record
from satbench.records.witnesses import read_witnesses, witnesses_path, write_witnesses

SHIPPED, SILU = "fmnist-sat-tiny-relu-s0", "fmnist-sat-tiny-silu-s0"
N = 12
WEAK = ("foolbox.fmn(steps=2)",)  # with it a curve is far above the survivors of PGD
THREAT = Threat.parse("linf:0.15")
CPU = torch.device("cpu")


@pytest.fixture
def images(fashion: Dataset) -> Dataset:
    return fashion.first(N)


def measured(model: LoadedModel, images: Dataset, out: Path, **plan: Any) -> Measured:
    settings = {"attacks": WEAK, "norm": "linf", "marks": (), **plan}
    return measure_curve(model.module, model.info, CurvePlan(images, **settings), out)


def evaluated(
    model: LoadedModel, images: Dataset, out: Path, attacks: Sequence[str] = ("pgd-20",)
) -> tuple[Record, Path]:
    done = run_evaluation(model.module, model.info, Evaluation(images, THREAT, attacks), CPU, out)
    return done.record, done.path


@pytest.fixture(autouse=True)
def _no_published_records(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "published" not in request.keywords:
        monkeypatch.setattr("satbench.curve.bounds.board_definitions", list)


# Attacks at the marks


@pytest.mark.slow
@pytest.mark.parametrize(
    "norm", ["linf", *(pytest.param(norm, marks=pytest.mark.slow) for norm in ("l2", "l1"))]
)
def test_a_curve_has_no_more_survivors_than_pgd_at_any_mark(
    norm: str, shipped: LoadedModel, images: Dataset, tmp_path: Path
) -> None:
    loose = measured(shipped, images, tmp_path / "loose", norm=norm).curve
    curve = measured(shipped, images, tmp_path, norm=norm, marks=None).curve

    marks = marks_of([curve])[1:]
    for eps in marks:
        threat = Threat.of(norm, eps)
        evaluation = Evaluation(images, threat, ["pgd-20"])
        done = run_evaluation(shipped.module, shipped.info, evaluation, CPU, tmp_path / "pgd")
        assert curve.surviving(eps) <= done.record.surviving()
    assert [bound.eps for bound in curve.bounds] == marks
    broken = sum(bound.broken for bound in curve.bounds)
    assert (norm == "l1") == (broken == 0)  # there the marks are at eps that break no image
    assert sum(loose.surviving(eps) - curve.surviving(eps) for eps in marks) >= broken
    assert marks_of([loose]) == marks_of([curve])  # a bound does not move a mark


def test_an_attack_at_a_mark_adds_points_to_the_curve(
    shipped: LoadedModel, images: Dataset, tmp_path: Path
) -> None:
    done = measured(shipped, images, tmp_path, marks=(0.1, 0.2))
    points = read_witnesses(witnesses_path(done.path))
    clean = images.pixels(points.indices).astype(np.float64)

    answers = predict(shipped.module, torch.from_numpy(points.images)).numpy()

    assert points.digest == done.curve.points_digest
    assert (answers != images.labels[points.indices]).all()
    told = [done.curve.distances[index] for index in points.indices.tolist()]
    found = np.abs(points.images.astype(np.float64) - clean).max((1, 2, 3))
    np.testing.assert_allclose(found, np.array(told, float), atol=1e-6)
    assert sum(bound.broken for bound in done.curve.bounds) > 0


@pytest.mark.slow
def test_marks_can_be_added_to_an_existing_curve(
    shipped: LoadedModel, images: Dataset, tmp_path: Path
) -> None:
    first = measured(shipped, images, tmp_path)
    second = measured(shipped, images, tmp_path, marks=(0.1,))
    third = measured(shipped, images, tmp_path, marks=(0.1, 0.2))
    again = measured(shipped, images, tmp_path, marks=(0.2, 0.1))

    assert [one.found for one in (first, second, third, again)] == [False, False, False, True]
    assert len({one.path for one in (first, second, third, again)}) == 1
    assert [bound.eps for bound in again.curve.bounds] == [0.1, 0.2]
    assert again.curve == third.curve == read_curve(third.path)
    falling = [one.curve.surviving(0.2) for one in (first, second, third)]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] > falling[-1]


def test_a_curve_from_labels_only_is_bounded_without_gradients(
    images: Dataset, tmp_path: Path, shipped: LoadedModel
) -> None:
    class Labels(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                logits: Tensor = self.net(x)
                return logits

    blind = replace(shipped, module=Labels(shipped.module))
    few = images.first(3)
    attack = "foolbox.hopskipjump(steps=1,initial_gradient_eval_steps=2)"

    curve = measured(blind, few, tmp_path, attacks=(attack,), marks=(0.4,)).curve

    assert [bound.by for bound in curve.bounds] == ["square(queries=5000,block=250)"]


def test_several_attacks_at_the_marks_each_have_a_bound(
    shipped: LoadedModel, images: Dataset, tmp_path: Path
) -> None:
    attacks = ("pgd-2", "autoattack")
    curve = measured(shipped, images.first(4), tmp_path, marks=(0.9,), at_marks=attacks).curve

    assert [bound.by.partition("(")[0] for bound in curve.bounds] == ["pgd", "autoattack"]


def test_an_unsuitable_attack_at_the_marks_is_refused_before_anything_runs(
    shipped: LoadedModel, images: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(SatbenchError, match=r"^expected l2 for foolbox\.ddn, got linf"):
        measured(shipped, images, tmp_path, at_marks=("foolbox.ddn",))
    assert not list(tmp_path.iterdir())


# Records


def test_a_later_record_lowers_the_curve(
    shipped: LoadedModel, images: Dataset, tmp_path: Path
) -> None:
    before = measured(shipped, images, tmp_path)
    record, _ = evaluated(shipped, images, tmp_path)

    after = measured(shipped, images, tmp_path)
    again = measured(shipped, images, tmp_path)

    eps = THREAT.radius
    assert before.curve.surviving(eps) > record.surviving() >= after.curve.surviving(eps)
    assert (after.found, again.found) == (False, True)
    assert again.curve == after.curve
    assert [bound.by for bound in after.curve.bounds] == [f"record {record.identity}"]
    points = read_witnesses(witnesses_path(after.path))
    assert len(points.indices) == sum(d is not None and d > 0 for d in after.curve.distances)


def test_a_record_of_more_images_bounds_a_curve_of_fewer(
    shipped: LoadedModel, images: Dataset, tmp_path: Path
) -> None:
    record, _ = evaluated(shipped, images, tmp_path)
    few = images.first(10)

    curve = measured(shipped, few, tmp_path).curve

    assert curve.surviving(THREAT.radius) <= record.verdicts[:10].count(SURVIVED)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n", [10, N])
def test_a_record_without_witnesses_bounds_the_curve_by_its_verdicts(
    n: int, shipped: LoadedModel, images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satbench.curve.bounds.load_dataset", lambda *_: images)
    record, path = evaluated(shipped, images, tmp_path)
    witnesses_path(path).unlink()

    done = measured(shipped, images.first(n), tmp_path)

    assert done.curve.surviving(THREAT.radius) <= record.verdicts[:n].count(SURVIVED)
    points = read_witnesses(witnesses_path(done.path)).indices.tolist()
    pointless = [k for k, d in enumerate(done.curve.distances) if d and k not in points]
    assert pointless  # the record names them, but there is no witness
    assert all(done.curve.distances[k] == THREAT.radius for k in pointless)


def of_another_model(record: Record) -> Record:
    return replace(record, model=replace(record.model, activation="gelu"))


def of_other_weights(record: Record) -> Record:
    return replace(record, model=replace(record.model, weights_digest="0" * 64))


def of_another_norm(record: Record) -> Record:
    return replace(record, norm="l2")


def of_another_data_set(record: Record) -> Record:
    return replace(record, dataset=replace(record.dataset, name="mnist"))


def in_a_random_order(record: Record) -> Record:
    return replace(record, dataset=replace(record.dataset, population=10_000))


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "change",
    [of_another_model, of_other_weights, of_another_norm, of_another_data_set, in_a_random_order],
)
def test_a_record_of_other_inputs_does_not_bound_the_curve(
    change: Callable[[Record], Record], shipped: LoadedModel, images: Dataset, tmp_path: Path
) -> None:
    record, path = evaluated(shipped, images, tmp_path)
    write_record(change(record), path)

    assert measured(shipped, images, tmp_path).curve.bounds == []


def test_an_invalid_witness_gives_no_point_of_the_curve(
    shipped: LoadedModel, images: Dataset, tmp_path: Path
) -> None:
    other = load_model(request_model(SILU), classes=10)
    record, path = evaluated(shipped, images, tmp_path / "records", ("pgd-1",))
    found = read_witnesses(witnesses_path(path))
    # Clean images, images outside the ball, images with wrong indices: none confirms a verdict.
    for fake in (
        replace(found, images=images.pixels(found.indices)),
        replace(found, images=1 - found.images),
        replace(found, indices=found.indices + N),
    ):
        write_witnesses(fake, witnesses_path(path))
        lying = replace(
            record,
            model=other.info,
            witnesses_digest=fake.digest,
            dataset=replace(record.dataset, digest="0" * 64),
        )
        write_record(lying, tmp_path / "records" / "lying.json")
        write_witnesses(fake, witnesses_path(tmp_path / "records" / "lying.json"))

        curve = measured(other, images, tmp_path / "records", seed=len(fake.indices)).curve

        assert all(bound.broken == 0 for bound in curve.bounds)


def test_a_file_that_is_not_a_record_is_skipped(
    shipped: LoadedModel, images: Dataset, tmp_path: Path
) -> None:
    digest = shipped.info.weights_digest
    for number, text in enumerate(("", "{", f'{{"weights_digest": "{digest}"}}', f"[{digest!r}]")):
        (tmp_path / f"{number}.json").write_text(text)

    assert measured(shipped, images, tmp_path).curve.bounds == []


@pytest.mark.sampled(1)
@pytest.mark.skipif(not content_folder("leaderboard").is_dir(), reason="the boards are not here")
@pytest.mark.parametrize("name", [SHIPPED, SILU])
def test_no_curve_is_above_the_published_record_of_its_model(
    name: str, images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    model = load_model(request_model(name), classes=10)

    curve = measured(model, images, tmp_path).curve

    folder = content_folder("leaderboard") / "fashion-mnist-linf-0.1"
    paths = [*folder.glob(f"records/{name}-*.json"), *folder.glob(f"reference/{name}-*.json")]
    records = [read_record(path) for path in paths]
    assert len(curve.bounds) == len(records) > 0
    for record in records:
        assert curve.surviving(0.1) <= record.verdicts[:N].count(SURVIVED)


@pytest.mark.slow
def test_the_command_bounds_all_curves_at_the_marks_of_the_table(tmp_path: Path) -> None:
    cheap = ("--attack", WEAK[0], "--at-marks", "pgd-3", "--n-examples", "4", "--quiet")
    words = ["curve", "--model", SHIPPED, "--model", "fmnist-standard-tiny-relu-s0", *cheap]

    said = CliRunner().invoke(cli, [*words, "--out", str(tmp_path)], catch_exceptions=False)
    again = CliRunner().invoke(cli, [*words, "--out", str(tmp_path)], catch_exceptions=False)

    assert said.stdout.count("wrote ") == 2
    assert again.stdout.count("found ") == 2
    curves = [read_curve(path) for path in tmp_path.glob("*.json")]
    marks = marks_of(curves)[1:]
    for curve in curves:
        assert {bound.eps for bound in curve.bounds} >= set(marks)
