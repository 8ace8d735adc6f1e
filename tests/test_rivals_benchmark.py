"""The benchmarks of suites beside their rivals: who missed what, and a choice that goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from benchmark_scripts import Load
from torch import Tensor, nn

from satbench.attacks.suites.suite_file import SuitePart
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.models import describe_module


def test_an_image_is_missed_where_another_suite_broke_it(load: Load, make_record) -> None:
    a, b, c = (make_record(v) for v in ([1, -1, 0, 1, -1], [1, 1, 0, -1, -1], [1, -1, 0, -1, -1]))

    rows = load("rivals").compared({"a": a, "b": b, "c": c})

    assert [("a", [1], [3]), ("b", [3], [1]), ("c", [1, 3], [])] == [
        (row["suite"], row["missed"], row["alone"]) for row in rows
    ]
    assert [(4, 2), (4, 2), (4, 3)] == [(row["clean"], row["robust"]) for row in rows]
    assert [load("rivals").passes_of(one) for one in (a, b, c)] == [row["passes"] for row in rows]


def test_the_table_has_a_group_of_all_nets_and_one_of_each_kind(load: Load) -> None:
    def line(net: str, kind: str, suite: str, robust: int, missed: int) -> dict[str, object]:
        found = {"missed": list(range(missed)), "alone": [], "passes": 500, "images": 100}
        return {"net": net, "kind": kind, "suite": suite, "robust": robust, **found}

    rows = [
        line("n", "relu", "a", 60, 1),
        line("m", "elu", "a", 50, 3),
        line("m", "elu", "b", 40, 0),
    ]
    groups = load("rivals").page(rows).split("**")[1::2]
    lines = [text for text in load("rivals").page(rows).splitlines() if text.startswith("| a")]

    assert ["all", "relu", "elu"] == groups
    assert ["55.00%", "60.00%", "50.00%"] == [line.split(" | ")[2] for line in lines]
    assert [("4", "3"), ("1", "1"), ("3", "3")] == [tuple(x.split(" | ")[3:5]) for x in lines]
    assert {"5"} == {line.split(" | ")[6].rstrip(" |") for line in lines}


def test_no_net_is_both_developed_on_and_held_out(load: Load) -> None:
    nets = load("nets")
    developed, held = nets.development_nets(), nets.held_out_nets(32)

    assert {21, 22} == {net.seed for net in developed}
    assert 2000 == min(net.seed for net in held)
    assert {net.activation for net in held} == set(nets.ACTIVATIONS)
    assert {net.recipe for net in held[:5]} == set(nets.RECIPES)
    names = [net.name for net in developed + held]
    assert len(set(names)) == len(names)
    assert any(net.levels for net in developed)
    assert any(net.levels for net in held)
    with pytest.raises(SystemExit):
        nets.held_out_nets(5, first_seed=22)


def test_a_rounded_input_hides_its_gradient_except_in_training(load: Load) -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).sum(1, keepdim=True)

    net = load("nets").Rounded(Sum(), levels=5)
    x = torch.tensor([[[[0.3, 0.4]]]])
    answers, slopes = [], []
    for mode in (True, False):
        leaf = x.clone().requires_grad_()
        logits = net.train(mode)(leaf)
        answers.append(float(logits.detach()))
        slopes.append(torch.autograd.grad(logits.sum(), leaf)[0].flatten().tolist())

    assert [0.75, 0.75] == pytest.approx(answers)  # 0.25 and 0.5
    assert [[1, 1], [0, 0]] == slopes


class Once(nn.Module):
    """A net that can be asked until it is shut."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.shut = net, False

    def forward(self, x: Tensor) -> Tensor:
        assert not self.shut, "asked about what is on the disk"
        logits: Tensor = self.net(x)
        return logits


def test_a_greedy_choice_takes_the_most_breaks_per_pass_and_goes_on_from_the_disk(
    load: Load, small_net: Callable[..., nn.Module], tmp_path: Path
) -> None:
    development, rivals = load("fast_development"), load("rivals")
    net = Once(small_net())
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    images = Dataset("tensors", "user", x.numpy(), net(x).argmax(1).numpy(), 5)
    where = rivals.Where(images, Threat.parse("linf:0.01"), tmp_path)
    subject = load("nets").Subject(net, describe_module(net, "net", "python"), "silu")
    parts = [
        SuitePart("nothing", "pgd(steps=1,step=eps/1000,start=clean)"),
        SuitePart("short", "cosine-pgd(steps=2)"),
        SuitePart("long", "cosine-pgd(loss=mifpe,steps=30)"),
    ]

    def steps() -> list[dict[str, object]]:
        search = development.Search([subject], images, where, [0, 1], parts)
        return [search.step(), search.step()]

    first = steps()
    net.shut = True

    assert "short" == first[0]["chosen"]
    tried = first[0]["candidates"]
    assert 0 == tried["nothing"]["broken"] < tried["short"]["broken"] <= tried["long"]["broken"]
    assert tried["long"]["passes"] > 5 * tried["short"]["passes"]
    later = first[1]["candidates"] if first[1] else {}
    left = 2 * 40 - tried["short"]["broken"]
    assert all(one["passes"] <= left * 62 for one in later.values())
    assert steps() == first


def test_a_greedy_choice_ends_where_no_candidate_breaks_anything(
    load: Load, small_net: Callable[..., nn.Module], tmp_path: Path
) -> None:
    development, net = load("fast_development"), small_net()
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    images = Dataset("tensors", "user", x.numpy(), net(x).argmax(1).numpy(), 5)
    where = load("rivals").Where(images, Threat.parse("linf:0.00001"), tmp_path)
    subject = load("nets").Subject(net, describe_module(net, "net", "python"), "silu")
    search = development.Search([subject], images, where, [0], [SuitePart("a", "pgd(steps=1)")])

    assert search.step() is None
    assert [] == search.chosen


def row(
    suite: str,
    missed: list[int],
    passes: int,
    left: int,
    net: str = "n",
    kind: str = "relu",
    images: int = 1000,
) -> dict[str, object]:
    counts = {"images": images, "clean": 900, "robust": left, "missed": missed, "passes": passes}
    return {"net": net, "kind": kind, "suite": suite, **counts}


def test_images_are_missed_beside_autoattack_and_not_beside_a_third_suite(load: Load) -> None:
    # Of images 1 to 5, AutoAttack broke 1, 2, 3; fast 3, 4; a third suite 5.
    rows = [
        row("autoattack", [4, 5], 9000, 500),
        row("fast", [1, 2, 5], 300, 501),
        row("a3", [1, 2, 3, 4], 300, 502),
        row("fast", [1], 300, 501, net="without AutoAttack"),
    ]
    lines = load("suites_page").lines_of(rows)

    assert [("autoattack", 0, 0), ("fast", 2, 1), ("a3", 3, 1)] == [
        (line.suite, line.missed, line.full_missed) for line in lines
    ]
    assert [0.0, 0.001, 0.002] == [line.above for line in lines]
    assert [1.0, 30.0, 30.0] == [line.fewer for line in lines]


@pytest.mark.parametrize(
    ("left", "missed", "passes", "reached"),
    [
        (501, 2, 360, (1, 1, 1)),
        (502, 2, 360, (0, 1, 1)),
        (501, 3, 360, (1, 0, 1)),
        (501, 2, 361, (1, 1, 0)),
    ],
)
def test_an_aim_names_the_networks_that_miss_it(
    left: int, missed: int, passes: int, reached: tuple[int, ...], load: Load
) -> None:
    script = load("suites_page")
    rows = [row("autoattack", [], 9000, 500), row("fast", [*range(missed)], passes, left)]
    said = script.aims_of("fast", script.lines_of(rows))

    assert list(reached) == [int("on 1 of 1 networks." in one) for one in said]
    assert list(reached) == [int("not on n." not in one) for one in said]


def test_the_page_of_suites_is_what_the_committed_results_say(load: Load) -> None:
    script = load("suites_page")

    assert script.page(script.RESULTS) == script.PAGE.read_text(encoding="utf-8")
