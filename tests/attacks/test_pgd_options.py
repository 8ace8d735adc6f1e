"""PGD's options beyond the plain ones: many samples of a randomised model, another backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from satbench.attacks import attack_spec, parse_attack, short_spec
from satbench.attacks.gradient.pgd import PGD
from satbench.core.errors import SatbenchError
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.backward import Backward
from satbench.engine.judge import predict
from satbench.engine.passes import CountingModel, Passes
from satbench.model_zoo import masked
from satbench.models import load_model, request_model

LINF = Threat.parse("linf:0.1")


class Flickering(nn.Module):
    """The mean pixel's two classes, whose answer is wrong in every second forward."""

    def __init__(self, net: nn.Module, calls: int) -> None:
        super().__init__()
        self.net, self.calls = net, calls

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.net(x)
        return -logits if self.calls % 2 else logits


def passes_of(attack: PGD, model: nn.Module, x: Tensor, y: Tensor) -> tuple[int, int]:
    passes = Passes()
    attack(CountingModel(model, passes), x, y, LINF, Noise(0, "pgd", tuple(range(len(x)))))
    return passes.take()


def test_every_sample_costs_a_forward_and_a_backward(mean_model: nn.Module) -> None:
    x, y = torch.full((3, 1, 2, 2), 0.9), torch.ones(3, dtype=torch.int64)

    assert passes_of(PGD(steps=4, eot=5), mean_model, x, y) == (60, 60)


@pytest.mark.parametrize("calls", [0, 1])
def test_an_iterate_that_some_sample_gets_right_does_not_end_the_search(
    calls: int, mean_model: nn.Module
) -> None:
    x, y = torch.full((1, 1, 2, 2), 0.9), torch.ones(1, dtype=torch.int64)

    assert passes_of(PGD(steps=4, eot=2), Flickering(mean_model, calls), x, y) == (8, 8)


def test_an_iterate_that_every_sample_gets_wrong_ends_the_search(mean_model: nn.Module) -> None:
    x, y = torch.full((1, 1, 2, 2), 0.1), torch.ones(1, dtype=torch.int64)

    assert passes_of(PGD(steps=4, eot=2), mean_model, x, y) == (2, 2)


def test_one_sample_is_plain_pgd() -> None:
    assert parse_attack("pgd(steps=20,eot=1)") == parse_attack("pgd-20")


def test_texts_from_before_these_options_stay_canonical() -> None:
    old = "pgd(steps=20,step=eps/4,restarts=1,start=uniform,keep=any)"

    assert attack_spec("pgd-20") == old


def test_the_options_show_in_the_short_text() -> None:
    text = "pgd-50(eot=10,backward=softplus(10))"

    assert short_spec(attack_spec(text)) == text


def test_fewer_samples_than_one_are_refused() -> None:
    with pytest.raises(SatbenchError, match=r"^pgd: expected eot of 1 or more, got 0$"):
        parse_attack("pgd(eot=0)")


def test_more_samples_lower_what_a_randomised_model_keeps(fashion: Dataset) -> None:
    model, n = masked.noisy().requires_grad_(False), 30
    x, y = torch.from_numpy(fashion.pixels(np.arange(n))), torch.from_numpy(fashion.labels[:n])
    threat, noise = Threat.parse("linf:0.03"), Noise(0, "pgd", tuple(range(n)))
    kept = {}
    for eot in (1, 8):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            x_adv = PGD(steps=5, eot=eot, keep="last")(model, x, y, threat, noise)
            kept[eot] = sum(int((predict(model, x_adv) == y).sum()) for _ in range(10))

    assert kept[8] <= kept[1] - 15  # of 300 answers


def test_a_smooth_backward_breaks_images_of_a_relu_net_that_its_own_gradient_leaves(
    fashion: Dataset,
) -> None:
    model = load_model(request_model("fmnist-sat-tiny-relu-s1"), 10).module.requires_grad_(False)
    places = np.array([8, 14, 20, 27, 31, 35])
    x, y = torch.from_numpy(fashion.pixels(places)), torch.from_numpy(fashion.labels[places])
    noise = Noise(0, "pgd", tuple(places.tolist()))

    own = PGD(steps=20)(model, x, y, LINF, noise)
    smooth = PGD(steps=20, backward=Backward(10))(model, x, y, LINF, noise)

    assert (predict(model, own) == y).tolist() == [True] * 6
    assert (predict(model, smooth) == y).tolist() == [False] * 6


def test_a_smooth_backward_leaves_the_values_of_the_forward(fashion: Dataset) -> None:
    model = load_model(request_model("fmnist-sat-tiny-relu-s1"), 10).module.requires_grad_(False)
    x = torch.from_numpy(fashion.pixels(np.arange(4))).requires_grad_()

    with Backward(10).applied():
        logits = model(x)

    assert torch.equal(logits, model(x))
