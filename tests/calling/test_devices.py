"""Models are moved to a device for a block, and moved back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from satbench.calling.devices import moved

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")


class Traveller(nn.Module):
    """A module that records its moves, and may refuse a device."""

    def __init__(self, refused: torch.device | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(2))
        self.sent: list[torch.device] = []
        self.refused = refused

    def to(self, device: torch.device) -> Traveller:  # type: ignore[override]
        self.sent.append(device)
        if device == self.refused:
            raise RuntimeError("out of memory")
        return self


def test_modules_are_moved_and_moved_back() -> None:
    one, other = Traveller(), Traveller()
    with moved([one, other], ELSEWHERE):
        assert (one.sent, other.sent) == ([ELSEWHERE], [ELSEWHERE])

    assert (one.sent, other.sent) == ([ELSEWHERE, CPU], [ELSEWHERE, CPU])


@pytest.mark.parametrize("refused", [ELSEWHERE, CPU])
def test_all_modules_are_moved_back_if_one_cannot_be_moved(refused: torch.device) -> None:
    modules = [Traveller(), Traveller(refused), Traveller()]
    with pytest.raises(RuntimeError, match="out of memory"), moved(modules, ELSEWHERE):
        pass

    assert modules[0].sent == [ELSEWHERE, CPU]
    assert modules[1].sent == [ELSEWHERE, CPU]
    assert modules[2].sent in ([], [ELSEWHERE, CPU])


def test_modules_are_moved_back_after_an_interrupt() -> None:
    one = Traveller()
    with pytest.raises(KeyboardInterrupt), moved([one], ELSEWHERE):
        raise KeyboardInterrupt

    assert one.sent == [ELSEWHERE, CPU]
