"""The curve of robust accuracy against eps: measured, written, drawn, and refused inputs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from in_memory import Quiet
from torch import Tensor, nn

from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.core.progress.course import StageCost
from satbench.core.progress.receiver import NoProgress
from satbench.curve.run import CurvePlan, Measured, measure_curve
from satbench.data import Dataset
from satbench.engine.judge import predict
from satbench.figures.drawing import curve_figure, heat_map
from satbench.models import describe_module
from satbench.records.curves import (
    Curve,
    CurveAttack,
    CurveBound,
    marks_of,
    parse_curve,
    reach_of,
    read_curve,
)
from satbench.records.record import DatasetInfo, Environment, ModelInfo
from satbench.records.witnesses import read_witnesses, witnesses_path

SHIPPED = "fmnist-sat-tiny-relu-s0"
MEANS = [0.1, 0.3, 0.45, 0.55, 0.8, 0.2]
LABELS = [0, 0, 0, 1, 1, 1]  # the last image is wrong when clean
DISTANCES = [0.4, 0.2, 0.05, 0.05, 0.3, 0.0]


@pytest.fixture
def images(grey_images: Callable[..., Dataset]) -> Dataset:
    return grey_images(MEANS, LABELS)


def measured(
    model: nn.Module,
    images: Dataset,
    out: Path,
    attacks: tuple[str, ...] = ("foolbox.fmn(steps=25)",),
    norm: str = "linf",
    progress: NoProgress | None = None,
    **plan: Any,
) -> Measured:
    info = describe_module(model, "mean", "python")
    return measure_curve(model, info, CurvePlan(images, norm, attacks, **plan), out, progress)


def made(distances: list[float | None], *, norm: str = "linf", chance: float = 0.1) -> Curve:
    """Make a curve by hand."""
    n = len(distances)
    return Curve(
        identity="i",
        model=ModelInfo("a-model", "zoo", "tiny", "relu", 1, "w", {}),
        dataset=DatasetInfo("some-images", "test", n, 10, f"d{n}"),
        shape=[1, 4, 4],
        chance=chance,
        norm=norm,
        seed=0,
        attacks=[CurveAttack("foolbox.fmn", n, n, n, 10 * n, 10 * n)],
        bounds=[CurveBound("pgd", 0.1, n, n, 10 * n, 10 * n)],
        reach=reach_of(distances),
        distances=distances,
        points_digest="p",
        environment=Environment("0", "0", "0", "0", "cpu", 1, 250, "0", 0.0, [0.1]),
    )


def test_measured_distances_equal_the_known_distances_of_a_simple_model(
    mean_model: nn.Module, images: Dataset, tmp_path: Path
) -> None:
    curve = measured(mean_model, images, tmp_path).curve

    np.testing.assert_allclose(curve.distances, DISTANCES, rtol=0.02)  # type: ignore[arg-type]
    assert curve.surviving(0) == 5
    assert curve.surviving(0.1) == 3
    assert curve.surviving(0.5) == 0


def test_progress_gets_the_cost_of_each_search_and_its_images(
    mean_model: nn.Module, images: Dataset, tmp_path: Path
) -> None:
    class Recorder(NoProgress):
        costs: Sequence[StageCost] = ()

        def __init__(self) -> None:
            self.searched: list[int] = []

        def expect(self, costs: Sequence[StageCost]) -> None:
            self.costs = self.costs or costs  # later runs bound the curve

        def advance(self, images: int, survivors: int) -> None:
            self.searched.append(survivors)

    shown, attacks = Recorder(), ("fab-t(targets=3,steps=20)", "foolbox.fmn(steps=25)")
    measured(mean_model, images, tmp_path, attacks, progress=shown)

    assert [cost.passes for cost in shown.costs] == [1, 40, 0]  # two classes have one target
    assert shown.searched[:3] == [5, 5, 5]  # one of six images is wrong when clean


def test_a_curve_records_which_kind_of_model_was_searched(
    mean_model: nn.Module, images: Dataset, tmp_path: Path
) -> None:
    marks: dict[str, Any] = {"at_marks": ("pgd-2",), "marks": (0.1,)}
    curve = measured(mean_model, images, tmp_path, ("foolbox.fmn(steps=5)",), **marks).curve

    assert [attack.search for attack in curve.attacks] == ["plain"]
    assert {bound.search for bound in curve.bounds} == {"plain"}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("stop", [1, 2, 4, 6, 8])
def test_a_stopped_curve_continues_to_the_same_curve(
    stop: int, mean_model: nn.Module, images: Dataset, tmp_path: Path
) -> None:
    plan = CurvePlan(
        images,
        "linf",
        ("foolbox.fmn(steps=3)", "foolbox.fmn(steps=2,max_stepsize=3)"),
        batch_size=4,
        marks=(0.1, 0.2),
        at_marks=("pgd-2",),
    )
    info = describe_module(mean_model, "mean", "python")
    whole = measure_curve(mean_model, info, plan, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        measure_curve(mean_model, info, plan, tmp_path / "stopped", Quiet(stop_after=stop))
    kept = len(list(tmp_path.rglob(".runs/**/*.npz")))
    went_on = measure_curve(mean_model, info, plan, tmp_path / "stopped")

    assert kept == stop
    assert replace(went_on.curve, environment=whole.curve.environment) == whole.curve
    assert list(tmp_path.rglob(".runs")) == []


def test_the_model_is_wrong_at_every_point_and_its_distance_is_exact(
    mean_model: nn.Module, images: Dataset, tmp_path: Path
) -> None:
    done = measured(mean_model, images, tmp_path)
    points = read_witnesses(witnesses_path(done.path))
    clean = images.pixels(points.indices).astype(np.float64)

    answers = predict(mean_model.eval(), torch.from_numpy(points.images)).numpy()

    assert points.digest == done.curve.points_digest
    assert points.indices.tolist() == [0, 1, 2, 3, 4]
    assert (answers != images.labels[points.indices]).all()
    found = np.abs(points.images.astype(np.float64) - clean).max((1, 2, 3))
    told = [done.curve.distances[index] for index in points.indices]
    # A point that rounding puts inside a mark counts as inside.
    assert found == pytest.approx(told, abs=1e-6)
    assert (found >= told).all()


def test_the_model_is_unchanged(
    mean_model: nn.Module, images: Dataset, tmp_path: Path, global_generators: None
) -> None:
    before = {name: value.clone() for name, value in mean_model.state_dict().items()}

    short = ("foolbox.hopskipjump(steps=1,initial_gradient_eval_steps=2)",)
    measured(mean_model, images, tmp_path, short, at_marks=("square(queries=5)",), marks=(0.1,))

    assert mean_model.training
    assert all(torch.equal(before[k], v) for k, v in mean_model.state_dict().items())
    assert [(p.requires_grad, p.grad) for p in mean_model.parameters()] == [(True, None)]


def test_the_nearest_point_of_two_attacks_counts(
    mean_model: nn.Module, images: Dataset, tmp_path: Path
) -> None:
    coarse = ("foolbox.deepfool",)
    fine = ("foolbox.fmn(steps=12)",)
    one = measured(mean_model, images, tmp_path, coarse).curve
    other = measured(mean_model, images, tmp_path, fine).curve

    both = measured(mean_model, images, tmp_path, coarse + fine).curve

    pairs = zip(one.distances, other.distances, strict=True)
    assert both.distances == [min(a or 0, b or 0) for a, b in pairs]
    assert sum(attack.nearest for attack in both.attacks) == 5
    assert [attack.forwards for attack in both.attacks] == [
        one.attacks[0].forwards,
        other.attacks[0].forwards,
    ]


@pytest.mark.parametrize("batch_size", [4])
def test_the_curve_does_not_depend_on_the_batch_size(
    batch_size: int, mean_model: nn.Module, images: Dataset, tmp_path: Path
) -> None:
    whole = measured(mean_model, images, tmp_path / "whole").curve

    cut = measured(mean_model, images, tmp_path / "cut", batch_size=batch_size).curve

    assert replace(cut, environment=whole.environment) == whole


def test_the_curve_of_the_same_inputs_is_found_again(
    mean_model: nn.Module, images: Dataset, tmp_path: Path
) -> None:
    first = measured(mean_model, images, tmp_path)

    again = measured(mean_model, images, tmp_path)

    assert (first.found, again.found) == (False, True)
    assert again.curve == first.curve


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"norm": "l2"}, {"attacks": ("foolbox.fmn(steps=61)",)}]
)
def test_another_input_makes_another_curve(
    change: dict[str, Any], mean_model: nn.Module, images: Dataset, tmp_path: Path
) -> None:
    first = measured(mean_model, images, tmp_path)

    other = measured(mean_model, images, tmp_path, **change)

    assert other.curve.identity != first.curve.identity
    assert other.path != first.path


def test_a_curve_is_read_as_it_was_written(
    mean_model: nn.Module, images: Dataset, tmp_path: Path
) -> None:
    done = measured(mean_model, images, tmp_path)

    assert read_curve(done.path) == done.curve
    assert done.path.read_text() == done.curve.to_json()


def test_an_older_curve_without_bounds_is_read() -> None:
    curve = made([0.0, 0.1, None, 0.4])
    values = json.loads(curve.to_json())
    old = {k: v for k, v in values.items() if k not in ("bounds", "reach")} | {"schema": 1}

    assert parse_curve(json.dumps(old), "here") == replace(curve, bounds=[])


distance_lists = st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=20)


@given(distance_lists)
def test_any_curve_is_written_and_read_back_unchanged(distances: list[float | None]) -> None:
    curve = made(distances)

    assert parse_curve(curve.to_json(), "here") == curve


@given(distance_lists, st.floats(0, 2), st.floats(0, 2))
def test_a_larger_eps_never_has_more_survivors(
    distances: list[float | None], one: float, other: float
) -> None:
    curve = made(distances)

    assert curve.surviving(max(one, other)) <= curve.surviving(min(one, other))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the curve here is not JSON"),
        ('{"schema": 1}', "expected a curve in here, got JSON of another kind"),
        ('{"kind": "curve", "schema": 3}', "expected a curve of schema 1 or 2 in here, got 3"),
        (
            '{"kind": "curve", "schema": 1, "distances": [-1]}',
            "the curve here is wrong: ",
        ),
        (
            '{"kind": "curve", "schema": 1, "distances": [true]}',
            "the curve here is wrong: ",
        ),
        (
            '{"kind": "curve", "schema": 1, "distances": [1]}',
            "the curve here is wrong: missing field identity",
        ),
    ],
)
def test_a_malformed_curve_is_refused(text: str, message: str) -> None:
    with pytest.raises(SatbenchError) as error:
        parse_curve(text, "here")

    assert str(error.value).startswith(message)


def test_a_curve_that_falls_to_0_shows_no_sign_of_masking() -> None:
    assert made([0.0, 0.1, 0.4]).masking_sign() is None


def test_images_that_no_attack_breaks_are_a_sign_of_masking() -> None:
    sign = made([0.1, None, 0.2, 0.0] * 3, chance=0.25).masking_sign()

    assert sign is not None
    assert sign.startswith("robust accuracy of a-model never falls to 0: no point at any distance")
    assert "was found for 3 of 12 images" in sign
    assert "foolbox.hopskipjump" in sign


@pytest.mark.parametrize(("norm", "radius"), [("linf", 0.5), ("l2", 2.0), ("l1", 8.0)])
def test_accuracy_above_chance_at_the_radius_of_grey_images_is_a_sign_of_masking(
    norm: str, radius: float
) -> None:
    curve = made([radius * 0.9, radius * 1.1, radius * 1.2], norm=norm, chance=0.4)

    assert curve.grey_radius == radius
    assert f"is still 66.7% within {norm} {radius:.4g}" in str(curve.masking_sign())


def test_a_model_that_hides_its_gradient_is_detected(images: Dataset, tmp_path: Path) -> None:
    class Rounded(nn.Module):
        """The rounded mean pixel, without a useful gradient."""

        def forward(self, x: Tensor) -> Tensor:
            score = (x.flatten(1).mean(1) * 20).round() - 10.2 + 0 * x.sum()
            return torch.stack([-score, score], 1)

    masked = measured(Rounded(), images, tmp_path).curve
    both = ("foolbox.fmn(steps=60)", "foolbox.hopskipjump(steps=2)")
    seen = measured(Rounded(), images, tmp_path, both).curve

    assert masked.masking_sign() is not None
    assert seen.masking_sign() is None


@pytest.mark.parametrize(
    ("attacks", "norm", "message"),
    [
        (
            ("pgd-5",),
            "linf",
            "expected attacks that look for the smallest perturbation, such as foolbox.fmn, "
            "got pgd-5",
        ),
        (
            ("foolbox.ddn",),
            "linf",
            "expected attacks for linf, got foolbox.ddn, which supports l2 only",
        ),
        ((), "linf", "expected at least one attack"),
    ],
)  # fmt: skip
def test_unsuitable_attacks_are_refused_before_anything_runs(
    attacks: tuple[str, ...],
    norm: str,
    message: str,
    mean_model: nn.Module,
    images: Dataset,
    tmp_path: Path,
) -> None:
    with pytest.raises(SatbenchError) as error:
        measured(mean_model, images, tmp_path, attacks, norm)

    assert str(error.value).startswith(message)


def test_marks_are_round_numbers_and_end_near_the_end_of_the_curve() -> None:
    assert marks_of([made([0.02 * k for k in range(20)])]) == [0.0, 0.1, 0.2, 0.3, 0.4]


CHEAP = ("--attack", "foolbox.fmn(steps=5)", "--n-examples", "5", "--quiet")


def test_the_command_writes_curves_points_and_the_figure(tmp_path: Path) -> None:
    other = "fmnist-sat-tiny-silu-s0"
    words = ["curve", "--model", SHIPPED, "--model", other, *CHEAP, "--out", str(tmp_path)]

    said = CliRunner().invoke(cli, [*words, "--json"], catch_exceptions=False)

    shown = json.loads(said.stdout)
    assert [one["model"] for one in shown] == [SHIPPED, other]
    for one in shown:
        curve = read_curve(Path(one["path"]))
        assert curve.n == 5
        assert one["accuracy"][0]["correct"] == curve.surviving(0)
        assert witnesses_path(Path(one["path"])).is_file()
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "curve.svg").read_text()
    assert svg.rstrip().endswith("</svg>")
    again = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert again.stdout.count("found ") == 2
    assert (tmp_path / "curve.svg").read_text() == svg


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--attack", "foolbox.fmm"), "unknown attack 'foolbox.fmm': did you mean 'foolbox.fmn'?"),
        (("--eps-max", "8"), "expected eps at most 1"),
        (("--n-examples", "0"), "expected 1 example or more, got 0"),
        (("--attack", "pgd-5", "--n-examples", "5"), "expected attacks that look for the smallest"),
    ],
)
def test_the_command_refuses_bad_input_in_one_sentence(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    said = CliRunner().invoke(cli, ["curve", "--model", SHIPPED, *words, "--out", str(tmp_path)])

    assert isinstance(said.exception, SatbenchError)
    assert str(said.exception).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    said = CliRunner().invoke(cli, ["curve", "--model", SHIPPED, *CHEAP, "--out", str(tmp_path)])

    assert "pip install 'satbench[plots]'" in str(said.exception)
    assert list(tmp_path.iterdir()) == []


def test_curves_of_two_norms_in_one_figure_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match="expected curves of one norm on the same images"):
        curve_figure([made([0.1]), made([0.1], norm="l2")], tmp_path / "both.png")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0.1]], "expected 2 rows of 2 values"),
        ([[0.1, 0.2], [0.3]], "expected 2 rows of 2 values"),
        ([[0.1, 0.2], [0.3, 40.0]], "expected shares in"),
    ],
)
def test_a_heat_map_of_invalid_values_is_refused(
    values: list[list[float]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SatbenchError, match=message):
        heat_map(values, ["a", "b"], ["c", "d"], "title", tmp_path / "map.png")


@pytest.mark.slow
def test_a_heat_map_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    values = [[0.1, float("nan")], [0.5, 1.0]]
    for name in ("one.svg", "two.svg", "one.png"):
        heat_map(values, ["a", "b"], ["c", "d"], "title", tmp_path / name)

    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_in_an_unsupported_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"expected a figure ending in .png or .svg, got a.pdf"):
        curve_figure([made([0.1])], tmp_path / "a.pdf")
