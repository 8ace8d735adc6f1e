"""Foolbox: exact answers on linear models, what its attacks refuse, and handling of failures."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch
from in_memory import Journal, Quiet, run_suite
from torch import Tensor, nn

from satbench.attacks import ATTACKS, attack_spec, parse_attack
from satbench.attacks.minimum_norm import MinimumNorm, minimum_distances
from satbench.attacks.packages.foolbox_attacks import FMN
from satbench.attacks.suites.suite import parse_suite
from satbench.core.errors import SatbenchError
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.ball import size
from satbench.engine.passes import CountingModel, Passes
from satbench.engine.runner import SURVIVED
from satbench.models import LoadedModel

NAMES = [name for name in ATTACKS.names() if name.startswith("foolbox.")]
NORMS = {
    "foolbox.fmn": {"linf", "l2", "l1"},
    "foolbox.ddn": {"l2"},
    "foolbox.deepfool": {"linf", "l2"},
    "foolbox.cw": {"l2"},
    "foolbox.boundary": {"l2"},
    "foolbox.hopskipjump": {"linf", "l2"},
}
LINF = Threat.parse("linf:0.3")


class Linear(nn.Module):
    """Two classes by a random hyperplane through the grey image.

    For logits (-s, s) with s = w · (x - 1/2) the distance to it is |s| over the dual norm of w, as
    long as no pixel leaves [0, 1].
    """

    def __init__(self, pixels: int = 36) -> None:
        super().__init__()
        w = torch.randn(pixels, generator=torch.Generator().manual_seed(3))
        self.w = nn.Parameter(w, requires_grad=False)

    def score(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - 0.5) @ self.w

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([-self.score(x), self.score(x)], 1)

    def distance(self, x: Tensor, norm: str) -> Tensor:
        dual = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}[norm]
        return self.score(x).abs() / torch.linalg.vector_norm(self.w, ord=dual)


class Constant(nn.Module):
    """A model with one answer; its gradient is 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).sum(1, keepdim=True) * 0 + torch.tensor([1.0, 0.0])


def greyish(n: int = 6, pixels: int = 36, seed: int = 11) -> Tensor:
    side = int(pixels**0.5)
    noise = torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed))
    return 0.35 + 0.3 * noise


def noise_of(n: int) -> Noise:
    return Noise(0, "foolbox", tuple(range(n)))


def distances(model: nn.Module, spec: str, x: Tensor, y: Tensor, norm: str) -> Tensor:
    attack = cast(MinimumNorm, parse_attack(spec))
    return minimum_distances(model, model, x, y, attack, norm, noise_of(len(x)))[1]


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("spec", "norm", "excess"),
    [
        ("foolbox.fmn(steps=60)", "linf", 0.02),
        ("foolbox.fmn(steps=60)", "l2", 0.02),
        ("foolbox.fmn(steps=200)", "l1", 0.1),
        ("foolbox.ddn(steps=60,init_epsilon=0.1)", "l2", 0.02),
        ("foolbox.deepfool", "linf", 0.03),
        ("foolbox.deepfool", "l2", 0.03),
        (
            "foolbox.cw(steps=100,stepsize=0.003,initial_const=0.1,binary_search_steps=3)",
            "l2",
            0.05,
        ),
        ("foolbox.hopskipjump(steps=6)", "linf", 0.25),
        ("foolbox.hopskipjump(steps=6)", "l2", 0.1),
        ("foolbox.boundary(steps=600,spherical_step=0.1,source_step=0.02)", "l2", 0.2),
    ],
)
def test_the_distance_to_a_hyperplane_is_found(spec: str, norm: str, excess: float) -> None:
    model, x = Linear(), greyish()
    y = model(x).argmax(1)
    exact = model.distance(x, norm).double()

    found = distances(model, spec, x, y, norm)

    assert (found >= exact * (1 - 1e-4)).all()
    assert (found <= exact * (1 + excess) + 1e-4).all()


def test_the_first_step_of_fmn_is_that_of_the_norm() -> None:
    attack = parse_attack("foolbox.fmn")
    assert isinstance(attack, FMN)

    steps = {norm: attack.package(norm).max_stepsize for norm in NORMS["foolbox.fmn"]}  # type: ignore[attr-defined]
    given = parse_attack("foolbox.fmn(max_stepsize=3.5)").package("linf").max_stepsize  # type: ignore[attr-defined]

    assert steps == {"linf": 10, "l2": 1, "l1": 1}
    assert given == 3.5
    assert attack_spec("foolbox.fmn") == "foolbox.fmn(steps=100,max_stepsize=auto,gamma=0.05)"


@pytest.mark.slow
def test_in_linf_fmn_comes_nearer_by_its_own_step_than_by_the_packages(
    shipped: LoadedModel, fashion: Dataset
) -> None:
    x = torch.from_numpy(fashion.pixels(np.arange(8)))
    y, net = torch.from_numpy(fashion.labels[:8]), shipped.module
    own, packages = (
        distances(net, f"foolbox.fmn(steps=30,max_stepsize={step})", x, y, "linf").median()
        for step in ("auto", "1")
    )

    assert own < 0.95 * packages


@pytest.mark.sampled(1)
@pytest.mark.parametrize("spec", ["foolbox.boundary", "foolbox.hopskipjump"])
def test_more_steps_by_labels_alone_come_nearer(spec: str) -> None:
    model, x = Linear(), greyish()
    y = model(x).argmax(1)
    few, many = {
        "foolbox.boundary": ("steps=1", "steps=300,spherical_step=0.1"),
        "foolbox.hopskipjump": ("steps=1,initial_gradient_eval_steps=1", "steps=4"),
    }[spec]

    far = distances(model, f"{spec}({few})", x, y, "l2")
    near = distances(model, f"{spec}({many})", x, y, "l2")

    assert (near < far).all()


@pytest.mark.slow
def test_hopskipjump_does_not_weaken_with_the_number_of_neighbours() -> None:
    # The package divides each image's noise and gradient by the length of the whole batch's.
    model, x = Linear(), greyish(40)
    y = model(x).argmax(1)

    found = distances(model, "foolbox.hopskipjump(steps=6)", x, y, "l2")

    assert (found <= 1.1 * model.distance(x, "l2") + 1e-3).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("name", NAMES)
def test_norms_that_an_attack_does_not_know_are_refused(name: str, norm: str) -> None:
    attack, model, x = parse_attack(name), Linear(), greyish(1)
    assert isinstance(attack, MinimumNorm)
    assert set(attack.norms) == NORMS[name]
    if norm in NORMS[name]:
        return
    with pytest.raises(
        SatbenchError,
        match=rf"^{name} makes perturbations small in l.* only, got {norm}; use foolbox\.fmn",
    ):
        attack(model, x, model(x).argmax(1), Threat.of(norm, "1"), noise_of(1))


@pytest.mark.parametrize("name", NAMES)
def test_only_attacks_by_labels_say_that_they_follow_no_gradients(name: str) -> None:
    (stage,) = parse_suite([name])

    assert stage.uses_gradients == (name not in ("foolbox.boundary", "foolbox.hopskipjump"))


@pytest.mark.parametrize("name", ["foolbox.boundary", "foolbox.hopskipjump"])
def test_attacks_by_labels_ask_for_no_gradient(name: str) -> None:
    passes, model, x = Passes(), Linear(), greyish(2)

    attack = parse_attack(f"{name}(steps=2)")
    attack(CountingModel(model, passes), x, model(x).argmax(1), LINF if "hop" in name
           else Threat.parse("l2:9"), noise_of(2))  # fmt: skip

    assert passes.forwards > 0
    assert passes.backwards == 0


@pytest.mark.parametrize(
    "spec",
    [
        "foolbox.fmn(steps=3)",
        "foolbox.ddn(steps=3)",
        "foolbox.deepfool(steps=3)",
        "foolbox.cw(steps=3,binary_search_steps=1)",
        "foolbox.boundary(steps=3)",
        "foolbox.hopskipjump(steps=3)",
    ],
)
def test_an_image_that_cannot_be_broken_comes_back_as_it_was(spec: str) -> None:
    x, y = greyish(3), torch.zeros(3, dtype=torch.int64)

    x_adv = parse_attack(spec)(Constant(), x, y, Threat.parse("l2:1"), noise_of(3))

    assert torch.equal(x_adv, x)


def test_an_image_without_a_starting_point_does_not_take_the_others_with_it() -> None:
    # Noise, white and black are of class 1, and no neighbour is of another class than 1.
    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            dark = (x.flatten(1).amax(1) < 0.2) & (x.flatten(1).amin(1) > 0.05)
            return torch.stack([dark.float(), 1 - dark.float()], 1)

    x = torch.full((2, 1, 4, 4), 0.1)
    x[1] = 0.6
    y = torch.tensor([0, 1])

    found = distances(Half(), "foolbox.boundary(steps=2)", x, y, "l2")
    alone = distances(Half(), "foolbox.boundary(steps=2)", x[1:], y[1:], "l2")

    assert found.isfinite().tolist() == [True, True]  # its neighbour is where it starts from
    assert alone.isinf().tolist() == [True]


def test_an_image_that_found_no_start_survives_beside_one_that_did(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("satbench.attacks.packages.watched.DRAWS", 1)
    x, noise = torch.full((2, 1, 4, 4), 0.5), noise_of(2)
    drawn = (torch.from_numpy(noise.uniform((1, 4, 4)))[0] + 1) / 2  # the first image's noise

    class AroundOnePoint(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            near = (x - drawn).flatten(1).abs().amax(1) < 0.2
            return torch.stack([~near, near], 1).float()

    y = torch.zeros(2, dtype=torch.int64)

    found = distances(AroundOnePoint(), "foolbox.hopskipjump(steps=1)", x, y, "linf")

    assert found.isfinite().tolist() == [True, False]


def test_under_a_threat_model_the_search_ends_when_all_images_are_broken() -> None:
    model, x, passes = Linear(), greyish(), Passes()
    y = model(x).argmax(1)
    threat = Threat.of("linf", float(2 * model.distance(x, "linf").max()))

    x_adv = parse_attack("foolbox.fmn(steps=1000)")(
        CountingModel(model, passes), x, y, threat, noise_of(6)
    )

    assert (model(x_adv).argmax(1) != y).all()
    assert passes.forwards < 6 * 100


def test_what_is_returned_for_an_image_out_of_reach_is_at_the_edge_of_the_ball() -> None:
    model, x = Linear(), greyish()
    threat = Threat.of("l2", float(model.distance(x, "l2").min() / 2))

    x_adv = parse_attack("foolbox.fmn")(model, x, model(x).argmax(1), threat, noise_of(6))

    torch.testing.assert_close(size(x_adv - x, threat), torch.full((6,), threat.radius).double())


def test_the_result_for_an_image_does_not_depend_on_its_batch_where_no_block_is_named(
    small_net: Callable[..., nn.Module],
) -> None:
    net, attack = small_net(), parse_attack("foolbox.fmn(steps=30)")
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    y, threat = net(x).argmax(1), Threat.parse("l2:0.4")

    together = attack(net, x, y, threat, noise_of(5))
    alone = torch.cat(
        [attack(net, x[i : i + 1], y[i : i + 1], threat, noise_of(1)) for i in range(5)]
    )

    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def test_a_wrong_image_keeps_distance_0(small_net: Callable[..., nn.Module]) -> None:
    net = small_net()
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    y = net(x).argmax(1)
    y[1] = (y[1] + 1) % 5

    found = distances(net, "foolbox.fmn(steps=30)", x, y, "linf")

    assert (found == 0).tolist() == [False, True, False]


def test_the_judge_confirms_every_point_that_is_returned(
    small_net: Callable[..., nn.Module],
) -> None:
    net = small_net()
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    y = net(x).argmax(1)
    attack = cast(MinimumNorm, parse_attack("foolbox.fmn(steps=30)"))

    points, found = minimum_distances(net, net, x, y, attack, "l2", noise_of(5))

    assert found.isfinite().all()
    assert (net(points).argmax(1) != y).all()
    assert torch.equal(size(points.double() - x.double(), Threat.parse("l2:1")), found)


def test_a_point_that_the_judge_does_not_confirm_has_no_distance() -> None:
    model, x = Linear(), greyish()
    y = model(x).argmax(1)

    class Shifted(nn.Module):
        """Its boundary is nearer to class 1 than the model's, and further from class 0."""

        def forward(self, x: Tensor) -> Tensor:
            score = model.score(x) - 0.2 * model.score(x0).abs().min()
            return torch.stack([-score, score], 1)

    attack = cast(MinimumNorm, parse_attack("foolbox.fmn"))
    x0 = x.clone()

    points, found = minimum_distances(model, Shifted(), x, y, attack, "linf", noise_of(6))

    assert torch.equal(found.isinf(), y == 1)
    assert torch.equal(points[y == 1], x[y == 1])


def test_the_engine_breaks_just_what_lies_within_reach(
    grey_images: Callable[..., Dataset], mean_model: nn.Module
) -> None:
    images = grey_images([0.1, 0.35, 0.45, 0.55, 0.65, 0.9], [0, 0, 0, 1, 1, 1])
    suite = parse_suite(["foolbox.fmn"])

    verdicts = run_suite(
        mean_model, images, Threat.parse("linf:0.1"), suite, 0, 4, Journal(), Quiet()
    )

    assert verdicts.tolist() == [SURVIVED, SURVIVED, 1, 1, SURVIVED, SURVIVED]
    assert mean_model.training
    assert [p.grad for p in mean_model.parameters()] == [None]


def test_the_root_logger_gets_no_handler() -> None:
    model, x = Linear(), greyish(1)
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        parse_attack("foolbox.deepfool(steps=1)")(model, x, model(x).argmax(1), LINF, noise_of(1))
        after = list(root.handlers)
    finally:
        root.handlers = before

    assert after == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("foolbox.fmn(steps=0)", "foolbox.fmn: expected steps of 1 or more, got 0"),
        ("foolbox.fmn(gamma=-1)", "foolbox.fmn: expected gamma above 0, got -1.0"),
        (
            "foolbox.ddn(init_epsilon=nan)",
            "foolbox.ddn(init_epsilon=…): expected a number up to 1e+30, got 'nan'",
        ),
        (
            "foolbox.deepfool(candidates=1)",
            "foolbox.deepfool: expected candidates of 2 or more, got 1",
        ),
        ("foolbox.cw(confidence=-1)", "foolbox.cw: expected a confidence of 0 or more, got -1.0"),
        ("foolbox.boundary(block=0)", "foolbox.boundary: expected block of 1 or more, got 0"),
        ("foolbox.fnm", "unknown attack 'foolbox.fnm': did you mean 'foolbox.fmn'?"),
        ("foolbox.ddn(step=3)", "unknown parameter of foolbox.ddn 'step': did you mean 'steps'?"),
    ],
)  # fmt: skip
def test_a_bad_spec_is_answered_in_a_sentence(spec: str, message: str) -> None:
    with pytest.raises(SatbenchError) as error:
        parse_attack(spec)

    assert message == str(error.value)


@pytest.mark.slow
def test_foolbox_is_imported_in_silence_on_a_machine_without_git_and_only_when_used() -> None:
    code = (
        "import sys; from satbench.attacks import parse_attack; parse_attack('foolbox.fmn');"
        "assert 'foolbox' not in sys.modules; import satbench.attacks.packages.foolbox_package;"
        "assert 'foolbox' in sys.modules"
    )

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PATH": "/nowhere", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("foolbox.cw(stepsize=50)", r"^foolbox\.cw: expected stepsize of at most 1, got 50: did "),
        ("foolbox.boundary(source_step=50)", r"expected source_step of at most 1, got 50: did you"),
        ("foolbox.boundary(spherical_step=1.5)", r"spherical_step of at most 1, got 1\.5$"),
        ("foolbox.fmn(max_stepsize=0)", r"expected max_stepsize above 0, such as 1, or auto, got"),
        ("foolbox.fmn(max_stepsize=far)", r"max_stepsize above 0, such as 1, or auto, got 'far'$"),
    ],
)
def test_a_step_beyond_all_bounds_is_refused(spec: str, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        parse_attack(spec)
