from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from satbench.attacks.borrow import borrowed, searching_copy


class Counter(nn.Module):
    """A model that writes into a buffer at every call, in eval mode too."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        logits: Tensor = self.net(x)
        return logits


@pytest.fixture
def model() -> Counter:
    """A model in train mode, but for its batch norm; one parameter frozen, one with a grad."""
    model = Counter()
    model.net[2].eval()
    model.net[1].bias.requires_grad_(False)
    model.net[1].weight.grad = torch.ones(3, 4)
    return model


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_the_model_is_in_eval_mode_with_frozen_parameters_while_borrowed(model: Counter) -> None:
    with borrowed(model) as judged:
        found = (any(modes(judged)), any(p.requires_grad for p in judged.parameters()))

    assert found == (False, False)


def test_the_model_itself_is_lent(model: Counter) -> None:
    with borrowed(model) as judged:
        assert judged is model


def test_the_mode_of_every_module_comes_back(model: Counter) -> None:
    before = modes(model)
    with borrowed(model):
        pass

    assert modes(model) == before
    assert (model.training, model.net[2].training) == (True, False)


def test_a_mode_that_the_borrower_changes_comes_back(model: Counter) -> None:
    before = modes(model)
    with borrowed(model) as judged:
        judged.train()

    assert modes(model) == before


def test_requires_grad_of_every_parameter_comes_back(model: Counter) -> None:
    with borrowed(model):
        pass

    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]


def test_the_very_same_grads_come_back(model: Counter) -> None:
    grad = model.net[1].weight.grad
    with borrowed(model) as judged:
        judged.net[1].weight.grad = None
        judged.net[1].bias.grad = torch.ones(3)

    assert model.net[1].weight.grad is grad
    assert model.net[1].bias.grad is None


def test_a_backward_pass_leaves_no_grad_in_the_parameters(model: Counter) -> None:
    with borrowed(model) as judged:
        judged(torch.rand(2, 4, requires_grad=True)).sum().backward()

    assert torch.equal(model.net[1].weight.grad, torch.ones(3, 4))
    assert model.net[2].weight.grad is None


def test_the_contents_of_buffers_come_back(model: Counter) -> None:
    seen = model.seen
    with borrowed(model) as judged:
        judged(torch.rand(2, 4))

    assert model.seen is seen
    assert torch.equal(seen, torch.zeros(3))


def test_batch_statistics_come_back(model: Counter) -> None:
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with borrowed(model) as judged:
        judged.train()(torch.rand(2, 4))

    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_buffers_with_nan_come_back(model: Counter) -> None:
    model.seen[1] = torch.nan
    with borrowed(model) as judged:
        judged(torch.rand(2, 4))

    assert torch.equal(model.seen.nan_to_num(7), torch.tensor([0.0, 7, 0]))


def test_everything_comes_back_after_an_error(model: Counter) -> None:
    before = modes(model)
    with pytest.raises(RuntimeError, match="shapes"), borrowed(model) as judged:
        judged(torch.rand(2, 5))

    assert modes(model) == before
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    assert torch.equal(model.seen, torch.zeros(3))


def test_borrowing_twice_at_once_brings_everything_back(model: Counter) -> None:
    before = modes(model)
    with borrowed(model) as outer, borrowed(outer):
        pass

    assert modes(model) == before
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]


def test_a_searching_copy_answers_as_the_model_does(model: Counter) -> None:
    x = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    with borrowed(model) as judged:
        expected, got = judged(x), searching_copy(judged)(x)

    torch.testing.assert_close(got, expected)


def test_what_a_searching_copy_does_stays_in_it(model: Counter) -> None:
    with borrowed(model) as judged:
        searching_copy(judged)(torch.rand(2, 4))
        seen = judged.seen.clone()

    assert torch.equal(seen, torch.zeros(3))


def test_a_searching_copy_is_laid_out_channels_last() -> None:
    twin = searching_copy(nn.Conv2d(4, 4, 3))

    assert twin.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_model_that_cannot_be_copied_is_searched_itself(model: Counter) -> None:
    model.lock = threading.Lock()  # type: ignore[assignment]

    assert searching_copy(model) is model


class Reassigning(nn.Module):
    """A model whose forward puts another tensor in the place of a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1
        return x


def test_a_buffer_that_the_forward_reassigns_comes_back_itself() -> None:
    model = Reassigning()
    before = model.calls
    with borrowed(model) as judged:
        judged(torch.ones(1))

    assert model.calls is before
    assert float(model.calls) == 0
