"""The labels of records on a figure of curves are apart, and above the marks they name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from satbench.figures.drawing import LABEL_APART, _mark_verdicts

LOOK = SimpleNamespace(marker="o", colour="black")


class Axes:
    """Keeps the heights of marks and labels."""

    def __init__(self) -> None:
        self.marks: list[float] = []
        self.labels: dict[str, float] = {}

    def plot(self, eps: list[float], left: list[float], **_: Any) -> None:
        self.marks += left

    def annotate(self, text: str, at: tuple[float, float], **_: Any) -> None:
        self.labels[text] = at[1]


def curve(left: float, eps: float = 0.1) -> Any:
    bounds = [SimpleNamespace(by="record x", eps=eps), SimpleNamespace(by="pgd", eps=0.2)]
    return SimpleNamespace(bounds=bounds, n=100, surviving=lambda _: left)


@pytest.mark.parametrize(
    ("lefts", "heights"),
    [
        ([66, 64], {64: 68.0, 66: 72.5}),
        ([64, 0], {64: 66.0, 0: 2.0}),
        ([64, 64.5, 66], {64: 68.0, 64.5: 72.5, 66: 77.0}),
    ],
)
def test_labels_of_one_eps_are_apart_and_above_their_marks(
    lefts: list[float], heights: dict[float, float]
) -> None:
    axes: Any = Axes()
    _mark_verdicts(axes, [(curve(left), LOOK) for left in lefts], end=0.3)

    named = {float(text.split(": ")[1].split()[0]): at for text, at in axes.labels.items()}
    assert named == heights
    assert sorted(axes.marks) == sorted(lefts)
    assert LABEL_APART == 4.5


@pytest.mark.parametrize(("end", "second"), [(0.21, 86.5), (0.16, 83.0)])
def test_labels_of_near_eps_do_not_meet(end: float, second: float) -> None:
    axes: Any = Axes()
    _mark_verdicts(axes, [(curve(80, 0.05), LOOK), (curve(81, 0.1), LOOK)], end=end)

    assert list(axes.labels.values()) == [82.0, second]
