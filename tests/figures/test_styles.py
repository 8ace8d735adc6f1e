"""What colours and markers mean in figures, and names beside points."""

from __future__ import annotations

from colorsys import rgb_to_hls
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from satbench.figures.drawing import attacks_text, steps_of
from satbench.figures.labels import label_points
from satbench.figures.picture import drawing
from satbench.figures.styles import ACTIVATION_COLOURS, NEUTRAL, PALETTE, looks_of
from satbench.networks.registry import ACTIVATIONS
from satbench.studies.measures import MEASURES
from satbench.studies.pages.looks import unit_of


def test_every_activation_has_a_colour_and_no_two_have_one() -> None:
    assert set(ACTIVATION_COLOURS) == {entry.name for entry in ACTIVATIONS}
    assert len(set(PALETTE)) == len(PALETTE)


def test_a_colour_is_the_activation_and_a_marker_the_recipe() -> None:
    looks = looks_of([("relu", "a"), ("silu", "a"), ("relu", "b"), ("silu", "b")])
    relu, silu = ACTIVATION_COLOURS["relu"], ACTIVATION_COLOURS["silu"]

    assert [look.colour for look in looks] == [relu, silu, relu, silu]
    assert [look.kind for look in looks] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "name", ["smooth-relu", "SmoothReLU", "smooth-relu(alpha=2)", "smooth relu"]
)
def test_an_activation_keeps_its_colour_however_it_is_written(name: str) -> None:
    assert looks_of([(name, ""), ("relu", "")])[0].colour == ACTIVATION_COLOURS["smooth-relu"]


def test_activations_that_colours_tell_apart_share_a_marker() -> None:
    assert {look.kind for look in looks_of([("celu(alpha=2)", "x"), ("relu", "y")])} == {0}


def test_a_known_activation_keeps_its_colour_beside_unknown_ones() -> None:
    things = [("relu", ""), ("parametric-softplus", ""), ("mine", "a"), ("mine", "b"), ("", "b")]
    looks = looks_of(things)

    known = [ACTIVATION_COLOURS["relu"], ACTIVATION_COLOURS["parametric-softplus"]]
    assert [look.colour for look in looks] == [*known, NEUTRAL, NEUTRAL, NEUTRAL]
    assert len({(look.colour, look.kind) for look in looks}) == len(things)


@pytest.mark.parametrize("activation", ACTIVATION_COLOURS)
def test_shades_of_one_activation_have_its_hue_and_differ_in_lightness(activation: str) -> None:
    colour = ACTIVATION_COLOURS[activation]
    looks = looks_of([(activation, str(k)) for k in range(7)])

    shades = [_hls(look.colour) for look in looks]
    assert all(abs(shade[0] - _hls(colour)[0]) < 0.02 for shade in shades)
    assert all(b[1] - a[1] > 0.05 for a, b in pairwise(shades))
    assert {look.activation for look in looks} == {activation}


def _hls(colour: str) -> tuple[float, float, float]:
    return rgb_to_hls(*to_rgb(colour))


@pytest.mark.parametrize("activation", ["relu", "unknown", ""])
def test_things_of_one_activation_or_none_have_colours_of_their_own(activation: str) -> None:
    looks = looks_of([(activation, str(k)) for k in range(len(PALETTE))])

    assert len({look.colour for look in looks}) == len(PALETTE)
    assert len({look.marker for look in looks}) == len(PALETTE)


def test_the_same_activation_with_other_parameters_has_another_marker() -> None:
    looks = looks_of([("celu(alpha=1)", ""), ("celu(alpha=2)", ""), ("relu", "")])

    assert looks[0].colour == looks[1].colour != looks[2].colour
    assert looks[0].marker != looks[1].marker


def test_every_measure_says_its_range_or_unit() -> None:
    assert unit_of(MEASURES["gradient cosine"]) == "in [-1, 1], higher is better"
    assert unit_of(MEASURES["gradient Lipschitz, mean"]) == "per unit of L2, lower is better"
    assert [] == [
        name for name, text in MEASURES.items() if unit_of(text)[:3] not in ("in ", "per")
    ]


@pytest.mark.parametrize(
    ("values", "steps"),
    [([68.0, 70.0], [68, 69, 70, 71]), ([50.5, 53.0], [50, 51, 52, 53, 54])],
)
def test_a_scale_tells_68_from_70(values: list[float], steps: list[float]) -> None:
    assert steps_of(values) == steps


def test_on_a_wide_scale_colours_change_every_two_points() -> None:
    steps = steps_of([20.0, 68.0, 70.0, 90.0])

    assert steps[0] <= 20
    assert steps[-1] > 90
    assert {b - a for a, b in pairwise(steps)} == {2}


def test_names_beside_near_points_do_not_meet() -> None:
    points = [(50.0, 50.0), (50.4, 50.2), (50.2, 49.8), (60.0, 40.0)]
    names = ["parametric softplus", "ReLU", "SmoothReLU", "GELU"]
    looks = looks_of([("relu", name) for name in names])
    with drawing((5, 4)) as picture:
        axes = picture.figure.add_subplot()
        axes.plot(*zip(*points, strict=True), "o")
        label_points(picture.figure, axes, points, names, looks)
        picture.figure.draw_without_rendering()
        boxes = [Text.get_window_extent(text) for text in axes.texts]
        frame = axes.get_window_extent()

    assert [text.get_text() for text in axes.texts] == names
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_a_curve_names_its_attacks_and_its_bounds() -> None:
    bound = SimpleNamespace
    curve: Any = SimpleNamespace(
        attacks=[bound(attack="foolbox.fmn(steps=10)"), bound(attack="fab-t(targets=3)")],
        bounds=[bound(by="record abc", eps=0.1), bound(by="pgd(steps=50)", eps=0.05)],
    )

    assert attacks_text([curve]).replace("\n", " ") == (
        "Nearest points by foolbox.fmn, fab-t; lowered by records of the models at eps 0.1; "
        "lowered by pgd at eps 0.05."
    )
