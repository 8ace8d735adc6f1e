from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import satbench
from satbench.engine import fast_copy
from satbench.engine.machine.quickest import FEW, best_of, quickest_form, seconds_of_a_step
from satbench.engine.machine.ways import FORMS, Form
from satbench.engine.searched import Searched


def net() -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    return nn.Sequential(layers, nn.Linear(144, 3)).eval().requires_grad_(False)


def in_seconds(*seconds: float) -> Any:
    """A clock that gives for each form in turn so many seconds."""
    left = list(seconds)

    def clock(searched: Searched, x: Tensor) -> float:
        assert len(x) == FEW
        return left.pop(0)

    return clock


X = torch.rand(6, 1, 8, 8)


@pytest.mark.parametrize(
    ("seconds", "form"),
    [
        ((1.0, 1.0, 1.0), "channels-last"),
        ((1.0, 0.95, 0.92), "channels-last"),
        ((1.0, 0.8, 0.9), "channels-first"),
        ((1.0, 0.9, 0.5), "plain"),
        ((float("inf"), float("inf"), 2.0), "plain"),
    ],
)
def test_another_form_than_the_usual_one_must_be_clearly_quicker(
    seconds: tuple[float, ...], form: Form, tmp_path: Path
) -> None:
    assert quickest_form(net(), X, "net", tmp_path / "forms", in_seconds(*seconds)) == form


def test_measurements_are_stored_by_network_and_image(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "forms.json"
    first = quickest_form(net(), X, "net", path, in_seconds(1, 0.5, 1))
    again = quickest_form(net(), X, "net", path, in_seconds())
    other = quickest_form(net(), X, "another", path, in_seconds(1, 1, 0.5))

    assert (first, again, other) == ("channels-first", "channels-first", "plain")
    assert sorted(json.loads(path.read_text()).values()) == [1, 2]


@pytest.mark.parametrize("kept", ["", "[]", '{"a": -1}', '{"a": true}', '{"a": "x"}'])
def test_an_unreadable_cache_is_measured_again(kept: str, tmp_path: Path) -> None:
    path = tmp_path / "forms.json"
    path.write_text(kept)

    assert quickest_form(net(), X, "net", path, in_seconds(1, 1, 0.5)) == "plain"


def test_each_form_is_timed_as_it_is() -> None:
    kinds = []
    for form in FORMS:
        searched = Searched(net(), forms=(form,))
        assert 0 < seconds_of_a_step(searched, X) < 60
        kinds.append(searched.kind)

    assert kinds == ["folded", "folded", "plain"]


def test_a_form_that_fails_is_never_the_quickest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "satbench.engine.searched.fast_copy",
        lambda model, channels_last: nn.Sequential(net(), nn.Softmax(1)),  # another function
    )

    assert seconds_of_a_step(Searched(net(), forms=("channels-last",)), X) == float("inf")
    assert best_of([float("inf"), float("inf"), 1.0]) == 2


@pytest.mark.parametrize(
    ("form", "kind", "layouts"),
    [
        ("channels-last", "folded", [True]),
        ("channels-first", "folded", [False]),
        ("plain", "plain", []),
    ],
)
def test_a_run_searches_the_form_that_is_quickest(
    form: Form, kind: str, layouts: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bool] = []

    def noted(model: nn.Module, channels_last: bool) -> nn.Module | None:
        made.append(channels_last)
        return real(model, channels_last)

    real = fast_copy.fast_copy
    monkeypatch.setattr("satbench.engine.searched.fast_copy", noted)
    monkeypatch.setattr("satbench.evaluation.run.HEAVY", 1)
    monkeypatch.setattr("satbench.evaluation.run.MANY", 1)
    monkeypatch.setattr("satbench.evaluation.run.quickest_form", lambda *given: form)
    model = net()
    y = model(X).argmax(1)
    record = satbench.evaluate(model, X, y, attacks="pgd-2", eps=0.1, out=tmp_path)

    assert made == layouts
    assert {stage.search for stage in record.stages} == {kind}


def test_nothing_is_measured_in_a_run_of_few_passes_or_of_a_light_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> Form:
        raise AssertionError("measured")

    monkeypatch.setattr("satbench.evaluation.run.quickest_form", refuse)
    y = torch.zeros(6, dtype=torch.int64)
    for limit, few in (("HEAVY", 1), ("MANY", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(f"satbench.evaluation.run.{limit}", few)
            satbench.evaluate(net(), X, y, attacks="pgd-2", eps=0.1, out=tmp_path / limit)
