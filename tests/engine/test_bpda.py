"""BPDA: a named layer keeps its forward and gets another backward, only in searches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import satbench
from satbench.cli import main
from satbench.core.errors import SatbenchError
from satbench.data import Dataset
from satbench.engine.bpda import Replaced
from satbench.engine.searched import Searched
from satbench.evaluation.replacements import load_replacements, parse_bpda
from satbench.model_zoo import masked
from satbench.records.record import Record


class Steps(nn.Module):
    """Round to integers, without a gradient; optionally in place."""

    def __init__(self, in_place: bool = False) -> None:
        super().__init__()
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        return x.detach().round_() if self.in_place else x.detach().round()


class Half(nn.Module):
    """Return half of the input."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


class Net(nn.Module):
    """Round ten times the pixels and multiply by weights; `never` is not called."""

    def __init__(self, in_place: bool = False) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Flatten(), Steps(in_place))
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 3)
        self.never = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.front(10 * x)))
        return logits


class Uncopyable(Net):
    """A model with a lock, which cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def net(make: Callable[[], nn.Module] = Net) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval().requires_grad_(False)


def images(n: int = 3) -> Tensor:
    return torch.rand(n, 1, 2, 2, generator=torch.Generator().manual_seed(1))


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)[0]


def slope(model: nn.Module, factor: float) -> Tensor:
    """Return the gradient of logit 0 with respect to the pixels if rounding has slope `factor`."""
    per_pixel = 10 * factor * model.head.weight[0] / (1 + model.norm.eps) ** 0.5
    return per_pixel.view(1, 1, 2, 2).expand(3, 1, 2, 2)


def state_of(model: nn.Module) -> list[dict[str, object]]:
    return [dict(module.__dict__) for module in model.modules()]


def test_the_values_equal_those_of_the_model() -> None:
    model, x = net(), images().requires_grad_()

    assert torch.equal(Replaced(model, {"front.1": nn.Identity()})(x), model(x))


def test_the_identity_passes_the_gradient_through() -> None:
    model = net()

    grad = gradient(Replaced(model, {"front.1": nn.Identity()}), images())

    torch.testing.assert_close(grad, slope(model, 1))


def test_the_gradient_equals_that_of_the_replacement() -> None:
    model = net()

    grad = gradient(Replaced(model, {"front.1": Half()}), images())

    torch.testing.assert_close(grad, slope(model, 0.5))


def test_a_layer_that_works_in_place_keeps_its_value() -> None:
    model, x = net(partial(Net, in_place=True)), images().requires_grad_()

    assert torch.equal(Replaced(model, {"front.1": nn.Identity()})(x), net()(x))


def test_a_layer_that_works_in_place_keeps_the_tensor_that_the_previous_layer_needs() -> None:
    chain, x = nn.Sequential(nn.Flatten(), nn.Sigmoid(), Steps(in_place=True)), images()

    grad = gradient(Replaced(chain, {"2": nn.Identity()}), x)

    s = torch.sigmoid(x[:, 0, 0, 0])
    torch.testing.assert_close(grad[:, 0, 0, 0], s * (1 - s))


def test_several_layers_are_replaced_at_once() -> None:
    model = net()

    grad = gradient(Replaced(model, {"front.1": Half(), "norm": Half()}), images())

    torch.testing.assert_close(grad, slope(model, 0.25) * (1 + model.norm.eps) ** 0.5)


def test_the_model_is_unchanged_after_a_forward() -> None:
    model = net()
    before = state_of(model)

    gradient(Replaced(model, {"front.1": nn.Identity(), "norm": Half()}), images())

    assert state_of(model) == before


def test_the_model_is_unchanged_after_a_failed_forward() -> None:
    model = net()
    before = state_of(model)

    with pytest.raises(RuntimeError):
        Replaced(model, {"norm": Half()})(torch.zeros(1, 1, 3, 3, requires_grad=True))

    assert state_of(model) == before


def test_a_users_own_forward_on_a_layer_stays_in_use() -> None:
    model, x = net(), images()
    model.front[1].forward = lambda x: x.detach() + 1  # type: ignore[method-assign]
    expected, before = model(x), state_of(model)

    got = Replaced(model, {"front.1": nn.Identity()})(x.requires_grad_())

    assert torch.equal(got, expected)
    assert state_of(model) == before


def test_a_model_that_cannot_be_copied_is_searched_and_unchanged() -> None:
    model = net(Uncopyable)
    before = state_of(model)

    searcher = Searched(model, {"front.1": nn.Identity()})

    torch.testing.assert_close(gradient(searcher, images()), slope(model, 1))
    assert state_of(model) == before


def test_a_copy_for_searching_gives_the_model_itself_no_gradient() -> None:
    model = net()
    gradient(Searched(model, {"front.1": nn.Identity()}), images())

    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient(model, images())


def test_a_layer_that_folding_would_remove_can_be_named() -> None:
    chain = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten()).eval()
    chain[1].running_var *= 4  # its own slope is a half
    chain.requires_grad_(False)

    grad = gradient(Searched(chain, {"1": nn.Identity()}), images())

    torch.testing.assert_close(grad[:, :, 0, 0], chain[0].weight[0, :, 0].T.expand(3, 1))


def test_an_unknown_layer_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        SatbenchError, match=r"^unknown layer 'frnt\.1': did you mean 'front\.1'\?$"
    ):
        Replaced(net(), {"frnt.1": nn.Identity()})


def test_a_layer_that_the_forward_never_calls_is_refused() -> None:
    with pytest.raises(SatbenchError, match="never calls the layer 'never'"):
        Replaced(net(), {"never": nn.Identity()})(images())


def test_a_replacement_of_another_shape_is_refused() -> None:
    replaced = Replaced(net(), {"front.1": nn.Unflatten(1, (2, 2))})

    with pytest.raises(SatbenchError, match=r"in shape \(3, 4\), got in shape \(3, 2, 2\)$"):
        gradient(replaced, images())


@pytest.mark.parametrize(
    "text", ["", "round", "round=", "=identity", "round=idenity", "round=module:", "round=:f"]
)
def test_a_malformed_replacement_option_is_refused(text: str) -> None:
    with pytest.raises(SatbenchError) as caught:
        parse_bpda([text])

    assert str(caught.value) == (
        f"expected --bpda LAYER=identity or LAYER=PACKAGE.MODULE:FACTORY, got {text!r}"
    )


def test_a_layer_named_twice_is_refused() -> None:
    with pytest.raises(SatbenchError, match="names the layer 'a' twice"):
        parse_bpda(["a=identity", "a=torch.nn:Identity"])


def test_a_factory_builds_the_replacement() -> None:
    made = load_replacements({"a": "torch.nn:Tanh", "b": "identity"})

    assert [(name, one.text, type(one.module)) for name, one in made.items()] == [
        ("a", "torch.nn:Tanh", nn.Tanh),
        ("b", "identity", nn.Identity),
    ]


def test_modules_with_different_parameters_have_different_texts() -> None:
    texts = [
        load_replacements({"a": module})["a"].text
        for module in (nn.Softplus(), nn.Softplus(), nn.Softplus(beta=2), nn.Linear(2, 2))
    ]

    assert texts[0] == texts[1]
    assert len(set(texts)) == 3
    assert texts[0].startswith("torch.nn.modules.activation.Softplus@")


def robust(dataset: Dataset, out: Path, bpda: dict[str, str | nn.Module] | None) -> Record:
    return satbench.evaluate(
        masked.rounding(),
        torch.from_numpy(dataset.pixels(np.arange(30))),
        torch.from_numpy(dataset.labels[:30]),
        attacks=["pgd-10"],
        eps=0.1,
        out=out,
        bpda=bpda,
    )


def test_only_pgd_with_bpda_breaks_a_model_that_rounds(fashion: Dataset, tmp_path: Path) -> None:
    plain = robust(fashion, tmp_path, None)
    bpda = robust(fashion, tmp_path, {"round": "identity"})

    assert plain.surviving() >= plain.clean_correct - 3
    assert bpda.surviving() == 0
    assert bpda.clean_correct == plain.clean_correct


def test_replacements_are_part_of_the_record_and_its_identity(
    fashion: Dataset, tmp_path: Path
) -> None:
    plain = robust(fashion, tmp_path, None)
    bpda = robust(fashion, tmp_path, {"round": nn.Identity()})

    (text,) = bpda.replacements.values()
    assert list(bpda.replacements) == ["round"]
    assert text.startswith("torch.nn.modules.linear.Identity@")
    assert plain.replacements == {}
    assert bpda.identity != plain.identity


def labelled() -> tuple[nn.Module, Tensor, Tensor]:
    model, x = net(), images(8)
    return model, x, model(x).argmax(1)


def test_a_model_without_gradient_is_evaluated_with_a_replacement(tmp_path: Path) -> None:
    model, x, y = labelled()

    with pytest.raises(SatbenchError, match="no gradient reaches the pixels"):
        satbench.evaluate(model, x, y, attacks=["pgd-5"], eps=0.3, out=tmp_path)
    record = satbench.evaluate(
        model, x, y, attacks=["pgd-5"], eps=0.3, out=tmp_path, bpda={"front.1": Half()}
    )

    assert record.surviving() < record.clean_correct == 8


def test_the_replacement_module_is_unchanged(tmp_path: Path) -> None:
    model, x, y = labelled()
    given = nn.Linear(4, 4)
    given.weight.grad = torch.ones(4, 4)

    satbench.evaluate(model, x, y, attacks=["pgd-2"], eps=0.3, out=tmp_path, bpda={"norm": given,
        "front.1": Half()})  # fmt: skip

    assert given.training
    assert given.weight.requires_grad
    assert torch.equal(given.weight.grad, torch.ones(4, 4))


def run(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["satbench", *arguments])
    with pytest.raises(SystemExit) as exit:
        main()
    return int(exit.value.code or 0)


def test_a_misspelt_layer_ends_the_command_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(
        ["eval", "--model", "satbench.model_zoo.masked:rounding", "--dataset", "fashion-mnist",
         "--eps", "0.1", "--attack", "pgd-2", "--n-examples", "5", "--out", str(tmp_path),
         "--bpda", "rond=identity"],
        monkeypatch,
    )  # fmt: skip

    assert code == 2
    assert capsys.readouterr().err == "satbench: unknown layer 'rond': did you mean 'round'?\n"
