"""Transfer attacks: each modification compared with a computation by hand, and the costs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from in_memory import Journal, Quiet, run_suite
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench import evaluate
from satbench.attacks import attack_spec, parse_attack
from satbench.attacks.gradient.pgd import PGD
from satbench.attacks.suites.suite import parse_suite
from satbench.attacks.transfer.gradients import (
    NAMES,
    Method,
    diversify,
    gaussian_kernel,
    normalise,
    smooth,
)
from satbench.attacks.transfer.surrogates import Transfer, Transferred
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.core.noise import Noise
from satbench.core.threat import Length, Threat
from satbench.data import Dataset
from satbench.engine.contract import NoiseSource
from satbench.engine.judge import check_allowed
from satbench.engine.passes import CountingModel, Passes

LINF = Threat.parse("linf:0.1")
METHODS = ("pgd", "mi", "ni", "di", "ti", "si", "vmi", "ni+di+ti+si+vmi")
MakeNet = Callable[..., nn.Module]


def nobody(x: Tensor) -> Tensor:
    raise AssertionError("the target was asked")


def transfer(model: object, **parameters: object) -> Transferred:
    """Return a transfer attack from `model`, or from several of them."""
    models = tuple(model) if isinstance(model, list) else (model,)
    if isinstance(method := parameters.get("method"), str):
        parameters["method"] = Method.parse(method)
    return Transferred(models, Transfer(**parameters))  # type: ignore[arg-type]


def a_batch(net: nn.Module, n: int = 4, size: int = 8) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(1))
    return x, net(x).argmax(1)


def noise_of(*indices: int) -> Noise:
    return Noise(0, "test", indices)


class Tilted(nn.Module):
    """The mean model, or for a negative sign its opposite."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = nn.Parameter(torch.tensor(sign))

    def forward(self, x: Tensor) -> Tensor:
        score = self.sign * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-score, score], 1)


@dataclass
class Scripted:
    """Logits (0, g·x), where g is the next of a list: the margin's gradient for label 0 is g."""

    grads: Sequence[Sequence[float]]
    visited: list[list[float]] = field(default_factory=list)

    def __call__(self, x: Tensor) -> Tensor:
        grad = torch.tensor(self.grads[len(self.visited)])
        self.visited.append([round(v, 4) for v in x.detach().flatten().tolist()])
        score = (x.flatten(1) * grad).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)


@dataclass
class Fixed:
    """Noise that is the same number everywhere."""

    value: float

    def uniform(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        return np.full((1, *shape), self.value, np.float32)

    normal = uniform

    def block_seed(self, restart: int = 0) -> int:
        return 0


def climb(model: Scripted, noise: NoiseSource | None = None, **parameters: object) -> list[float]:
    """Attack the image (0.5, 0.5) of label 0 on `model`, its margin, and return what comes out."""
    x, y = torch.full((1, 1, 1, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    attack = transfer(
        model, loss="margin", step=Length.parse("0.01"), steps=2, kernel=1, **parameters
    )
    x_adv = attack(nobody, x, y, LINF, noise or Fixed(0.0))
    return [round(v, 4) for v in x_adv.flatten().tolist()]


# What each modification does, by hand.  |mean| of (4, 0) is 2, so momentum begins at (2, 0).


def test_momentum_adds_gradients_up_after_each_is_divided_by_its_mean_absolute_value() -> None:
    assert normalise(torch.tensor([[4.0, 0.0], [-3.0, 1.0]])).tolist() == [[2, 0], [-1.5, 0.5]]
    # (2, 0) + (-1, 1) = (1, 1): the second step goes on to the right.
    assert climb(Scripted([(4, 0), (-1, 1)]), method="mi") == [0.52, 0.51]


def test_momentum_decays() -> None:
    # 0.25 · (2, 0) + (-1, 1) = (-0.5, 1).
    assert climb(Scripted([(4, 0), (-1, 1)]), method="mi", decay=0.25) == [0.5, 0.51]


def test_nesterov_looks_ahead_along_the_momentum() -> None:
    model = Scripted([(4, 0), (-1, 1)])

    assert climb(model, method="ni", decay=0.75) == [0.52, 0.51]
    # After a step of 0.01, 0.01 · 0.75 · (2, 0) further.
    assert model.visited == [[0.5, 0.5], [0.525, 0.5]]


def test_scale_invariance_averages_the_gradients_of_halved_copies() -> None:
    model = Scripted([(1, 1), (-4, 1), (1, 1), (1, 1)])

    # With respect to x: ((1, 1) + (-4, 1) / 2) / 2 = (-0.5, 0.75); then (0.75, 0.75).
    assert climb(model, method="si", scales=2) == [0.5, 0.52]
    assert model.visited == [[0.5, 0.5], [0.25, 0.25], [0.49, 0.51], [0.245, 0.255]]


def test_variance_tuning_adds_what_the_neighbours_of_the_last_point_differed_by() -> None:
    model = Scripted([(1, 1), (5, 0), (-4.5, 0.5), (0, 0)])

    # v = (5, 0) - (1, 1) = (4, -1); then 0.5 · (1, 1) + ((-4.5, 0.5) + v) / 0.5 = (-0.5, -0.5).
    assert climb(model, Fixed(0.5), method="vmi", neighbours=1, decay=0.5) == [0.5, 0.5]
    # The neighbour lies at 0.5 · 1.5 eps from the point.
    assert model.visited[:3] == [[0.5, 0.5], [0.575, 0.575], [0.51, 0.51]]


def test_without_variance_tuning_the_same_gradients_lead_elsewhere() -> None:
    assert climb(Scripted([(1, 1), (-4.5, 0.5)]), method="mi", decay=0.5) == [0.5, 0.52]


def test_look_ahead_and_neighbours_stay_within_the_box() -> None:
    model = Scripted([(4, 0), (4, 0), (4, 0), (4, 0)])

    climb(model, Fixed(1.0), method="ni+vmi", neighbours=1, radius=20, decay=80)

    assert model.visited == [[0.5, 0.5], [1, 1], [1, 0.5], [1, 1]]


def test_the_kernel_is_a_gaussian_cut_off_at_three_deviations() -> None:
    tail = float(np.exp(-4.5))

    assert gaussian_kernel(1).tolist() == [1]
    expected = np.array([tail, 1, tail]) / (1 + 2 * tail)
    np.testing.assert_allclose(gaussian_kernel(3).numpy(), expected, rtol=1e-6)


def test_smoothing_spreads_a_point_over_the_kernel_and_not_over_channels() -> None:
    grad = torch.zeros(1, 2, 5, 5)
    grad[0, 1, 2, 3] = 1
    kernel = gaussian_kernel(3)

    smoothed = smooth(grad, 3)

    torch.testing.assert_close(smoothed[0, 1, 1:4, 2:5], kernel[:, None] * kernel)
    assert float(smoothed.sum()) == pytest.approx(1)
    assert not smoothed[0, 0].any()


def test_diversity_shows_the_image_smaller_and_elsewhere() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(4, 1, 2, 2)
    # A canvas twice as large: the image keeps its size (ratio 1) at the canvas' corners, or fills
    # it; half the canvas' pixels are one pixel of what the model sees.
    draws = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0.3, 0.7], [0.9, 0, 0, 0]])

    shown = diversify(x, draws, probability=0.5, resize=2)

    assert shown[0, 0].tolist() == [[2.5, 0], [0, 0]]
    assert shown[1, 0].tolist() == [[0, 0], [2.5, 0]]
    assert torch.equal(shown[2], x[2])  # as large as the canvas
    assert torch.equal(shown[3], x[3])  # not chosen


def test_every_image_draws_a_size_and_a_place_of_its_own() -> None:
    x = torch.ones(3, 1, 28, 28)
    draws = torch.from_numpy((noise_of(0, 1, 2).uniform((4,)) + 1) / 2)

    shown = diversify(x, draws, probability=1, resize=1.3)

    areas = shown.sum((1, 2, 3)).tolist()
    assert len({round(area, 2) for area in areas}) == 3
    assert all((28 / 1.3) ** 2 <= area <= 28**2 for area in areas)


def test_an_ensemble_averages_logits() -> None:
    # One gradient is the mean of (3, 1) and (-1, -3), their probabilities' would be another.
    models = [Scripted([(3, 1), (0, 0)]), Scripted([(-1, -3), (0, 0)])]
    x, y = torch.full((1, 1, 1, 2), 0.5), torch.zeros(1, dtype=torch.int64)

    attack = transfer(models, loss="margin", step=Length.parse("0.01"), steps=1, method="mi")
    x_adv = attack(nobody, x, y, LINF, Fixed(0.0))

    assert [round(v, 4) for v in x_adv.flatten().tolist()] == [0.51, 0.49]


# What is composed of them.


def test_a_method_is_written_in_one_order() -> None:
    specs = {
        attack_spec(f"transfer(method={'+'.join(names)})")
        for names in itertools.permutations(("mi", "di", "ti"))
    }

    assert len(specs) == 1
    assert "method=mi+di+ti," in specs.pop()


@pytest.mark.parametrize(("text", "canonical"), [("vmi+mi+ni", "ni+vmi"), ("mi+ni+di", "ni+di")])
def test_momentum_that_another_part_has_already_is_left_out(text: str, canonical: str) -> None:
    assert str(Method.parse(text)) == canonical


def test_a_misspelt_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'vmi'"):
        parse_attack("transfer(method=di+vmii)")


@pytest.mark.parametrize("wrong", ["mi+mi", "pgd+mi", ""])
def test_a_method_that_contradicts_itself_is_refused(wrong: str) -> None:
    with pytest.raises(SatbenchError, match="method"):
        Method.parse(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        "steps=0",
        "scales=0",
        "neighbours=0",
        "kernel=4",
        "probability=1.5",
        "decay=-1",
        "resize=0.9",
        "radius=-0.5",
        "decay=nan",
        "source=a+a",
        "source=a+",
        "source=none",
        "source=a,ensemble=true",
    ],
)
def test_parameters_out_of_range_are_refused_in_a_sentence(wrong: str) -> None:
    name = wrong.partition("=")[0] if "ensemble" not in wrong else "ensemble"
    with pytest.raises(SatbenchError, match=rf"^transfer\b.*{name}"):
        parse_attack(f"transfer({wrong})")


@pytest.mark.parametrize(
    ("method", "gradients"),
    [("pgd", 10), ("mi", 10), ("ni+di+ti", 10), ("si", 50), ("vmi", 210)],
)
def test_passes_of_the_source_per_image(method: str, gradients: int) -> None:
    passes, x = Passes(), torch.full((3, 1, 2, 2), 0.4)
    y = torch.zeros(3, dtype=torch.int64)

    attack = transfer(CountingModel(Tilted(1.0), passes), method=method, steps=10)
    attack(nobody, x, y, LINF, noise_of(0, 1, 2))

    assert passes.take() == (3 * gradients, 3 * gradients)


@pytest.mark.parametrize("threat", ["linf:0.1", "l2:1"])
def test_plain_pgd_on_the_target_itself_is_white_box_pgd(threat: str, small_net: MakeNet) -> None:
    net = small_net()
    x, y = a_batch(net)
    step = Length.parse("eps/10")

    made = transfer(net, method="pgd", steps=7, step=step, loss="ce")(
        nobody, x, y, Threat.parse(threat), noise_of(0, 1, 2, 3)
    )
    white = PGD(steps=7, step=step, keep="last")(
        net, x, y, Threat.parse(threat), noise_of(0, 1, 2, 3)
    )

    assert torch.equal(made, white)


@pytest.mark.parametrize("method", METHODS)
def test_an_image_does_not_depend_on_its_batch(method: str, small_net: MakeNet) -> None:
    net = small_net()
    x, y = a_batch(net)
    attack = transfer(net, method=method, steps=3, neighbours=2, scales=2, kernel=5, resize=1.3)

    together = attack(nobody, x, y, LINF, noise_of(4, 5, 6, 7))
    alone = [
        attack(nobody, x[i : i + 1], y[i : i + 1], LINF, noise_of(4 + i)) for i in range(len(x))
    ]

    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


def test_different_methods_make_different_images(small_net: MakeNet) -> None:
    net = small_net()
    x, y = a_batch(net)
    parameters = {"steps": 4, "neighbours": 2, "kernel": 5, "resize": 1.3}

    made = [
        transfer(net, method=name, **parameters)(nobody, x, y, LINF, noise_of(0, 1, 2, 3))
        for name in NAMES
    ]

    assert not any(torch.equal(a, b) for a, b in itertools.combinations(made, 2))


# The contract, which tests/contract holds for attacks that borrow nothing.


@pytest.mark.sampled(3)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("threat", ["linf:0.3", "l2:3", "l1:12"])
def test_the_result_is_allowed_and_all_else_left_alone(
    threat: str, method: str, small_net: MakeNet
) -> None:
    net = small_net()
    x, y = a_batch(net)
    before = x.clone(), y.clone(), {k: v.clone() for k, v in net.state_dict().items()}
    generators = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    attack = transfer(net, method=method, steps=4, step=Length.parse("eps/2"), neighbours=2)

    x_adv = attack(nobody, x, y, Threat.parse(threat), noise_of(0, 1, 2, 3))
    again = attack(nobody, x, y, Threat.parse(threat), noise_of(0, 1, 2, 3))

    check_allowed(x, x_adv, Threat.parse(threat))
    assert torch.equal(x_adv, again)
    assert (net(x_adv).argmax(1) != y).any()
    assert not x_adv.requires_grad
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert all(torch.equal(net.state_dict()[name], kept) for name, kept in before[2].items())
    assert not any(p.requires_grad or p.grad is not None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), generators[0])
    np.testing.assert_array_equal(np.random.get_state()[1], generators[1])
    assert random.getstate() == generators[2]


# In a run.


@dataclass
class Surrogates:
    """Gives nets by name."""

    nets: dict[str, nn.Module]

    def surrogate(self, name: str) -> nn.Module:
        return self.nets[name]

    def pool(self, n: int) -> NDArray[np.float32]:
        raise AssertionError("nobody asked for images")

    def spent(self, forwards: int, backwards: int) -> None:
        raise AssertionError("all passes are the sources'")


def grey_run(
    mean_model: nn.Module, data: Dataset, spec: str, nets: dict[str, nn.Module]
) -> tuple[list[int], Journal]:
    journal = Journal()
    verdicts = run_suite(
        mean_model, data, LINF, parse_suite([spec]), 0, 10, journal, Quiet(), Surrogates(nets)
    )
    return verdicts.tolist(), journal


def test_each_source_is_a_stage_that_runs_on_what_the_last_one_left(
    mean_model: nn.Module, grey_images: Callable[..., Dataset]
) -> None:
    data = grey_images((0.55, 0.45, 0.65), (1, 0, 1))
    # The first source points the wrong way, the second the right one; the third image is too far.
    nets = {"wrong": Tilted(-1.0), "right": Tilted(1.0)}

    verdicts, journal = grey_run(
        mean_model, data, "transfer(source=wrong+right,method=mi,steps=10)", nets
    )

    assert verdicts == [2, 2, -1]
    attacked = [result for result in journal if result.stage and len(result.indices)]
    assert [(r.stage, len(r.indices), int(r.broken.sum())) for r in attacked] == [
        (1, 3, 0),
        (2, 3, 2),
    ]


def test_the_search_asks_the_target_nothing_and_its_sources_are_counted(
    mean_model: nn.Module, grey_images: Callable[..., Dataset]
) -> None:
    data = grey_images((0.55, 0.45), (1, 0))
    nets = {"a": Tilted(-1.0), "b": Tilted(-2.0)}

    _, journal = grey_run(
        mean_model, data, "transfer(source=a+b,method=mi,steps=10,ensemble=true)", nets
    )

    attacked = [result for result in journal if result.stage and len(result.indices)]
    assert [(r.forwards, r.backwards) for r in attacked] == [(0, 0)] * 3
    assert [(r.source_forwards, r.source_backwards) for r in attacked] == [
        (20, 20),
        (20, 20),
        (40, 40),
    ]


def test_parts_are_named_after_their_sources() -> None:
    suite = parse_suite(["transfer(source=a+b,ensemble=true)"])

    assert [stage.part for stage in suite] == ["a", "b", "ensemble"]
    assert [stage.attack.surrogates for stage in suite] == [("a",), ("b",), ("a", "b")]  # type: ignore[attr-defined]
    assert not any(stage.uses_gradients for stage in suite)


def test_a_source_of_too_few_classes_is_refused(small_net: MakeNet) -> None:
    net = small_net(classes=3)
    x, _ = a_batch(net)

    with pytest.raises(SatbenchError, match=r"more than 4 \(the highest label\), got 3"):
        transfer(net)(nobody, x, torch.tensor([0, 1, 2, 4]), LINF, noise_of(0, 1, 2, 3))


def test_a_transfer_attack_without_its_sources_refuses(small_net: MakeNet) -> None:
    net = small_net()
    x, y = a_batch(net)
    ((_, part),) = Transfer(source="a").parts()

    with pytest.raises(SatbenchError, match="needs its surrogates a first"):
        part(net, x, y, LINF, noise_of(0, 1, 2, 3))


def test_the_benchmarks_surrogates_stand_in_the_record(tmp_path: object) -> None:
    record = evaluate(
        "fmnist-sat-tiny-relu-s0",
        attacks=["transfer(method=mi,steps=2)"],
        n_examples=8,
        out=tmp_path,  # type: ignore[arg-type]
    )

    assert len(record.sources) == 4
    assert [stage.part for stage in record.stages] == sorted(record.sources)
    # Two steps on every survivor, and not one pass of the target but the judge's.
    assert [stage.source_backwards for stage in record.stages] == [
        2 * stage.attacked for stage in record.stages
    ]
    assert [stage.forwards for stage in record.stages] == [0, 0, 0, 0]
