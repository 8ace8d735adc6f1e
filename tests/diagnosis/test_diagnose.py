from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.diagnosis.diagnose import (
    EXAMINED,
    FEWEST,
    NOTHING,
    Findings,
    images_to_examine,
    looked_at,
    probe,
)
from satbench.engine.judge import predict
from satbench.model_zoo import masked
from satbench.models import load_model, request_model
from satbench.preflight.image_checks import dataset_from_tensors

LINF = Threat.parse("linf:0.1")
L2 = Threat.parse("l2:1.5")
STANDARD = masked.WRAPPED


class Changed(nn.Module):
    """A net, and what a masked one makes of its pixels and logits."""

    def __init__(
        self,
        net: nn.Module,
        after: Callable[[Tensor], Tensor] = lambda logits: logits,
        before: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        super().__init__()
        self.net, self.after, self.before = net, after, before

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.net(self.before(x)))


@pytest.fixture
def net() -> nn.Module:
    return load_model(request_model(STANDARD), 10).module


@pytest.fixture(scope="module")
def some(fashion: Dataset) -> Dataset:
    return fashion.first(40)


def diagnose(
    model: nn.Module, data: Dataset, threat: Threat = LINF, batch_size: int = 250
) -> Findings:
    x = torch.from_numpy(data.pixels(np.arange(len(data))))
    right = np.flatnonzero(predict(model.eval(), x).numpy() == data.labels)
    return probe(model, data, threat, right, batch_size)


def names(diagnosis: Findings) -> list[str]:
    return [flag.name for flag in diagnosis.flags]


def shares(diagnosis: Findings) -> dict[str, float]:
    return {flag.name: flag.images / flag.of for flag in diagnosis.flags}


# Honest models


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "fmnist-sat-tiny-relu-s0",
        "fmnist-sat-tiny-silu-s0",
        "fmnist-sat-tiny-parametric-softplus-s0",
        STANDARD,
    ],
)
def test_an_honest_model_has_no_flag(name: str, threat: Threat, fashion: Dataset) -> None:
    assert diagnose(load_model(request_model(name), 10).module, fashion, threat).flags == ()


def test_logits_in_half_precision_are_no_sign(net: nn.Module, some: Dataset) -> None:
    class Half(Changed):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return super().forward(x)

    assert diagnose(Half(net), some).flags == ()


def test_confident_logits_whose_softmax_rounds_to_one_are_no_sign(
    net: nn.Module, some: Dataset
) -> None:
    model = Changed(net, after=lambda z: 3 * z)
    x = torch.from_numpy(some.pixels(np.arange(len(some))))

    assert (model(x).softmax(1).amax(1) == 1).any()
    assert diagnose(model, some).flags == ()


# Masked models


@pytest.mark.parametrize(
    ("factory", "sign", "least"),
    [
        (masked.rounding, "zero-gradient", 1),
        (masked.hard_labels, "zero-gradient", 1),
        (masked.saturated, "vanishing-loss-gradient", 1),
        (masked.noisy, "randomised", 1),
        (masked.detached, "unstable-gradient", 0.9),
    ],
)
def test_a_shipped_masked_model_has_the_flag_of_its_mask_alone(
    factory: Callable[[], nn.Module], sign: str, least: float, some: Dataset
) -> None:
    found = shares(diagnose(factory(), some))

    assert list(found) == [sign]
    assert found[sign] >= least


def test_dropout_that_stays_on_is_random(net: nn.Module, some: Dataset) -> None:
    model = Changed(net, before=lambda x: nn.functional.dropout(x, 0.2, training=True))

    assert "randomised" in names(diagnose(model, some))


def test_noise_on_the_logits_is_random(net: nn.Module, some: Dataset) -> None:
    model = Changed(net, after=lambda z: z + 0.01 * torch.randn_like(z))

    assert shares(diagnose(model, some)) == {"randomised": 1}


def test_probabilities_are_found(net: nn.Module, some: Dataset) -> None:
    assert shares(diagnose(Changed(net, after=lambda z: z.softmax(1)), some))["softmax-output"] == 1


def test_a_saturated_softmax_is_found_by_its_gradient_too(net: nn.Module, some: Dataset) -> None:
    found = shares(diagnose(Changed(net, after=lambda z: (3 * z).softmax(1)), some))

    assert found["softmax-output"] == 1
    assert found["negligible-gradient"] > 0.5


def test_hard_labels_with_a_fake_tiny_gradient_are_found(net: nn.Module, some: Dataset) -> None:
    class Fake(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            labels = nn.functional.one_hot(net(x).argmax(1), 10)
            return 10 * labels + 1e-6 * net(x.flip(3))

    assert shares(diagnose(Fake(), some)) == {"negligible-gradient": 1}


def test_rounding_with_the_gradient_of_the_identity_is_found(net: nn.Module, some: Dataset) -> None:
    model = Changed(net, before=lambda x: x + ((255 * x).round() / 255 - x).detach())

    assert shares(diagnose(model, some)) == {"unstable-gradient": 1}


def test_a_shattered_surface_is_found(net: nn.Module, some: Dataset) -> None:
    model = Changed(net, before=lambda x: x + 0.01 * torch.sin(1e4 * x))

    assert shares(diagnose(model, some)) == {"unstable-gradient": 1}


def test_a_backward_of_pure_noise_is_found(net: nn.Module, some: Dataset) -> None:
    def noise(x: Tensor) -> Tensor:
        if x.requires_grad:
            x = x.clone()
            x.register_hook(torch.randn_like)
        return x

    assert shares(diagnose(Changed(net, before=noise), some))["unstable-gradient"] > 0.9


def test_in_l2_a_loss_gradient_shorter_than_attacks_can_divide_by_has_vanished(
    net: nn.Module, some: Dataset
) -> None:
    model = Changed(net, after=lambda z: 6 * z)

    assert names(diagnose(model, some, LINF)) == []
    assert names(diagnose(model, some, L2)) == ["vanishing-loss-gradient"]


@pytest.mark.parametrize("way", ["grad", "backward", "held"])
def test_a_model_that_differentiates_in_its_forward_is_found(
    way: str, net: nn.Module, some: Dataset
) -> None:
    held = torch.autograd.grad

    def purify(x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            loss = net(leaf).logsumexp(1).sum()
            if way == "backward":
                loss.backward()
                grad = leaf.grad
            else:
                (grad,) = (torch.autograd.grad if way == "grad" else held)(loss, leaf)
        return x - 1e-4 * grad

    assert shares(diagnose(Changed(net, before=purify), some)) == {"dynamic-gradient": 1}


def test_autograd_is_itself_again_afterwards(net: nn.Module, some: Dataset) -> None:
    before = torch.autograd.grad, torch.autograd.backward
    diagnose(net, some)

    assert (torch.autograd.grad, torch.autograd.backward) == before


@pytest.mark.parametrize(("classes", "found"), [(3, ["few-classes"]), (9, ["few-classes"])])
def test_fewer_than_ten_classes_are_found(
    classes: int, found: list[str], small_net: Callable[..., nn.Module]
) -> None:
    model = small_net(classes=classes)
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    data = dataset_from_tensors(x, model(x).argmax(1), classes)

    assert names(diagnose(model, data)) == found


def test_masked_classes_do_not_count(net: nn.Module, some: Dataset) -> None:
    hidden = torch.tensor([False] * 9 + [True])
    model = Changed(net, after=lambda z: z.masked_fill(hidden, -torch.inf))

    assert shares(diagnose(model, some))["few-classes"] == 1


def test_a_model_without_any_gradient_has_a_gradient_of_zero(net: nn.Module, some: Dataset) -> None:
    model = Changed(net, after=lambda z: z.detach())

    assert shares(diagnose(model, some)) == {"zero-gradient": 1}


# Answers that are not the image's own, or not the judge's


@pytest.mark.parametrize(
    "before",
    [
        lambda x: x - x.mean(0),
        lambda x: x * (1 if len(x) > 12 else 0.5),
        lambda x: torch.cat([x[:1], 0.5 * x[1:]]),
    ],
    ids=["mean", "size", "first"],
)
def test_answers_that_hang_on_the_batch_are_found(
    before: Callable[[Tensor], Tensor], net: nn.Module, some: Dataset
) -> None:
    found = shares(diagnose(Changed(net, before=before), some, batch_size=20))

    assert found["batch-dependent"] > 0
    assert "randomised" not in found


class OfTwoModes(nn.Module):
    """A net that answers with `other` if no gradients are recorded, as for the judge."""

    def __init__(self, net: nn.Module, other: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.other = net, other

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits if torch.is_grad_enabled() else self.other(logits)


class Remembers(nn.Module):
    """A net that answers as for the nearest known image, except under attack."""

    def __init__(self, net: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.net, self.images = net, images

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            x = self.images[torch.cdist(x.flatten(1), self.images.flatten(1)).argmin(1)]
        logits: Tensor = self.net(x)
        return logits


def test_answers_that_change_where_gradients_are_recorded_are_found(
    net: nn.Module, some: Dataset
) -> None:
    sharper = shares(diagnose(OfTwoModes(net, lambda z: 3 * z), some))
    rounded = shares(diagnose(OfTwoModes(net, lambda z: z.round()), some))

    assert sharper["gradient-mode"] == rounded["gradient-mode"] == 1
    assert not {"randomised", "batch-dependent"} & {*sharper, *rounded}


def test_a_model_that_remembers_the_clean_images_is_found_on_attacked_ones(
    net: nn.Module, some: Dataset
) -> None:
    model = Remembers(net, torch.from_numpy(some.pixels(np.arange(len(some)))))

    assert shares(diagnose(model, some))["gradient-mode"] > 0.9


def test_a_random_model_is_not_taken_for_one_of_two_modes_or_one_that_hangs_on_its_batch(
    some: Dataset,
) -> None:
    assert names(diagnose(masked.noisy(), some, batch_size=20)) == ["randomised"]


# Every image, the cost, and no traces


def only_late(net: nn.Module, some: Dataset, places: list[int]) -> nn.Module:
    """A net whose gradient is zero only for the images at `places`."""
    marked = torch.from_numpy(some.pixels(np.array(places))).flatten(1)

    def stop(x: Tensor) -> Tensor:
        hit = (torch.cdist(x.detach().flatten(1), marked) == 0).any(1)
        return torch.where(hit.view(-1, 1, 1, 1), x.detach(), x)

    return Changed(net, before=stop)


def test_images_of_later_batches_are_looked_at(net: nn.Module, some: Dataset) -> None:
    found = diagnose(only_late(net, some, [33, 37]), some, batch_size=5)

    assert dict(found.places) == {"zero-gradient": (33, 37)}
    assert [(flag.name, flag.images) for flag in found.flags] == [("zero-gradient", 2)]


def test_the_batch_size_changes_nothing(some: Dataset) -> None:
    one, other = (diagnose(masked.detached(), some, batch_size=size) for size in (7, 40))

    assert one == other


def test_each_image_costs_three_forwards_and_a_backward_and_some_cost_more(
    net: nn.Module, some: Dataset
) -> None:
    found = probe(net, some, LINF, np.arange(30), batch_size=20)

    assert (found.forwards, found.backwards, found.images) == (3 * 30 + 2 * 8, 30, 30)


def test_of_many_images_some_are_looked_at_first_and_last_among_them(
    net: nn.Module, some: Dataset
) -> None:
    found = probe(only_late(net, some, [9]), some, LINF, np.arange(30), 5, most=4)
    spread = probe(only_late(net, some, [10]), some, LINF, np.arange(30), 5, most=4)

    assert dict(found.places) == {"zero-gradient": (9,)}
    assert spread == Findings((), {}, 3 * 4 + 2 * 1, 4, 4)


def test_where_some_images_show_a_sign_all_are_looked_at(net: nn.Module, some: Dataset) -> None:
    model = only_late(net, some, [0, 5, 21])
    few = probe(model, some, LINF, np.arange(30), 5, most=4)
    whole = probe(model, some, LINF, np.arange(30), 5)

    assert dict(few.places) == {"zero-gradient": (0, 5, 21)}
    assert (few.flags, few.images) == (whole.flags, 30)
    assert few.forwards == 3 * 4 + 2 * 1 + 3 * 30 + 2 * 30
    assert few.backwards == 4 + 30


def test_a_sign_of_the_model_is_of_all_images_and_costs_no_second_look(some: Dataset) -> None:
    torch.manual_seed(0)
    three = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
    data = replace(some, labels=some.labels % 3, classes=3)
    found = probe(three, data, LINF, np.arange(30), 5, most=4)

    assert [(flag.name, flag.images, flag.of) for flag in found.flags] == [("few-classes", 30, 30)]
    assert (found.forwards, found.backwards, found.images) == (3 * 4 + 2 * 1, 4, 4)


@pytest.mark.parametrize(
    ("passes", "right", "survivors", "images"),
    [
        (10**6, 900, 0, 0),
        (10, 3, 1, 3),
        (10, 900, 1, FEWEST),
        (6_000, 900, 600, 40),
        (10**6, 300, 1, 300),
        (10**6, 900, 1, EXAMINED),
    ],
)
def test_as_many_images_are_looked_at_as_the_attacks_were_worth(
    passes: int, right: int, survivors: int, images: int
) -> None:
    assert images_to_examine(passes, right, survivors) == images


@pytest.mark.parametrize("right", [30, 800])
@pytest.mark.parametrize("flagged", [True, False])
def test_an_older_diagnosis_looked_at_its_flags_images_or_as_many_as_its_forwards_tell(
    flagged: bool, right: int, net: nn.Module, some: Dataset
) -> None:
    flags = probe(masked.hard_labels(), some, LINF, np.arange(30)).flags if flagged else ()
    attacked = 30 if right == 30 else 62

    assert looked_at(flags, 3 * (right + attacked), right) == (30 if flagged else right)
    assert looked_at((), 3 * (500 + 63), 800) == 500


def test_no_look_costs_nothing(net: nn.Module, some: Dataset) -> None:
    assert probe(net, some, LINF, np.arange(30), most=0) == NOTHING


def test_no_image_costs_nothing(net: nn.Module, some: Dataset) -> None:
    assert probe(net, some, LINF, np.arange(0)) == NOTHING


def test_the_same_seed_gives_the_same_diagnosis_of_a_random_model(some: Dataset) -> None:
    model = masked.noisy()
    every = np.arange(len(some))

    assert probe(model, some, LINF, every, seed=1) == probe(model, some, LINF, every, seed=1)


def test_global_generators_are_left_alone(some: Dataset, global_generators: None) -> None:
    probe(masked.noisy(), some, LINF, np.arange(10))


def test_the_model_is_unchanged(net: nn.Module, some: Dataset) -> None:
    net.train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    probe(net, some, LINF, np.arange(10))

    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
