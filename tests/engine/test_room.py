"""A device without memory for a batch: the run continues with half, with the same verdicts."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from in_memory import Journal
from torch import Tensor, nn

import satbench
from satbench.attacks.suites.suite import parse_suite
from satbench.calling.shortage import NoRoomError, is_out_of_memory
from satbench.core.errors import SatbenchError
from satbench.core.progress.receiver import NoProgress
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.diagnosis.diagnose import probe
from satbench.engine.judge import predict
from satbench.engine.runner import BatchResult, Context
from satbench.engine.suite_run import run_suite
from satbench.models import LoadedModel

LINF = Threat.parse("linf:0.1")
SUITE = ["pgd-5", "apgd-ce(steps=5,block=10)", "cosine-pgd(steps=4,backward=softplus(5))"]


class Refuses(nn.Module):
    """A model on a device whose allocator refuses more than `most` images at once.

    With gradients it refuses more than `most_with`.
    """

    def __init__(
        self, model: nn.Module, most: int, most_with: int, error: Callable[[], Exception]
    ) -> None:
        super().__init__()
        self.model, self.most, self.most_with, self.error = model, most, most_with, error
        self.largest = 0

    def forward(self, x: Tensor) -> Tensor:
        with_gradient = torch.is_grad_enabled() and x.requires_grad
        if len(x) > (self.most_with if with_gradient else self.most):
            raise self.error()
        self.largest = max(self.largest, len(x))
        logits: Tensor = self.model(x)
        return logits


@dataclass
class Notes(NoProgress):
    """Progress that records messages for the user."""

    notes: list[str]

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(autouse=True)
def _no_memory_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    # It looks through all objects of other tests; only a real allocator needs it.
    monkeypatch.setattr("satbench.calling.shortage.free_memory", lambda: None)


def run(model: nn.Module, images: Dataset, attacks: list[str]) -> tuple[list[int], Journal, Notes]:
    journal, told = Journal(), Notes([])
    context = Context(images, LINF, journal, told, batch_size=20)
    return run_suite(model, parse_suite(attacks), context).tolist(), journal, told


def spent(results: list[BatchResult]) -> list[tuple[int, int, int]]:
    """Return images, forwards and backwards of each stage."""
    stages = sorted({result.stage for result in results})
    return [
        (
            sum(len(one.indices) for one in results if one.stage == stage),
            sum(one.forwards for one in results if one.stage == stage),
            sum(one.backwards for one in results if one.stage == stage),
        )
        for stage in stages
    ]


def test_verdicts_and_passes_are_the_same_if_the_allocator_refuses_large_batches(
    shipped: LoadedModel, fashion: Dataset
) -> None:
    images = fashion.first(22)
    verdicts, journal, _ = run(shipped.module, images, SUITE)
    small = Refuses(shipped.module, most=13, most_with=3, error=torch.OutOfMemoryError)
    again, in_parts, told = run(small, images, SUITE)

    assert again == verdicts
    assert len(set(verdicts)) > 2
    assert spent(in_parts) == spent(journal)
    assert small.largest <= 13
    assert any("3 " in note or note.endswith("depends on it") for note in told.notes)
    assert all("not enough memory for" in note for note in told.notes)


def test_the_size_that_fits_is_remembered(shipped: LoadedModel, fashion: Dataset) -> None:
    small = Refuses(shipped.module, 20, 5, torch.OutOfMemoryError)
    _, _, told = run(small, fashion.first(21), ["pgd-1", "pgd-2"])

    assert len(told.notes) == 2  # 20 to 10 to 5, once


def test_no_memory_for_one_image_gives_one_sentence(shipped: LoadedModel, fashion: Dataset) -> None:
    small = Refuses(shipped.module, 20, 0, torch.OutOfMemoryError)
    for attack in ("pgd-1", "apgd-ce(steps=1)"):
        with pytest.raises(NoRoomError, match=r"1 image under .*--checkpointing"):
            run(small, fashion.first(2), [attack])


def test_other_errors_are_not_out_of_memory_errors(shipped: LoadedModel, fashion: Dataset) -> None:
    broken = Refuses(shipped.module, 20, 5, lambda: RuntimeError("expected 3 channels"))
    with pytest.raises(SatbenchError, match="expected 3 channels"):
        run(broken, fashion.first(8), ["pgd-3"])


def test_an_error_raised_from_an_out_of_memory_error_counts_as_one() -> None:
    hiding = ValueError("my model failed")
    hiding.__cause__ = torch.OutOfMemoryError()

    assert is_out_of_memory(hiding)
    assert not is_out_of_memory(ValueError("my model failed"))


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        MemoryError,
    ],
    ids=["cuda", "cpu", "python"],
)
def test_the_judge_calls_the_model_in_halves(
    error: Callable[[], Exception], shipped: LoadedModel, fashion: Dataset
) -> None:
    x = torch.from_numpy(fashion.first(21).pixels(torch.arange(21).numpy()))
    small = Refuses(shipped.module.eval(), 4, 4, error)

    assert predict(small, x).tolist() == predict(shipped.module, x).tolist()


def test_the_diagnosis_does_not_count_failed_batches(
    shipped: LoadedModel, fashion: Dataset
) -> None:
    images, rows = fashion.first(20), torch.arange(20).numpy()
    whole = probe(shipped.module, images, LINF, rows)
    parts = probe(Refuses(shipped.module, 7, 5, torch.OutOfMemoryError), images, LINF, rows)

    assert parts == whole


def test_an_evaluation_from_python_completes_with_little_memory(
    shipped: LoadedModel, fashion: Dataset, tmp_path: Path
) -> None:
    images = fashion.first(8)
    given = {"attacks": "pgd-2", "eps": "0.1", "progress": False}
    x, y = images.pixels(torch.arange(8).numpy()), images.labels
    small = Refuses(shipped.module, 5, 2, torch.OutOfMemoryError)
    whole = satbench.evaluate(shipped.module, x, y, out=tmp_path / "whole", **given)  # type: ignore[arg-type]
    parts = satbench.evaluate(small, x, y, out=tmp_path / "parts", **given)  # type: ignore[arg-type]

    assert parts.verdicts == whole.verdicts
    assert parts.diagnosis == whole.diagnosis


REAL = """
import resource, sys, torch
from torch import nn
import satbench
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(1, 128, 3, padding=1), nn.SiLU(), nn.Conv2d(128, 1, 1),
                    nn.Flatten(), nn.Linear(64 * 64, 3)).eval()
x = torch.rand(60, 1, 64, 64)
y = net(x).argmax(1).detach()
satbench.evaluate(net, x[:2], y[:2], attacks="pgd-1", eps="1/255", out=None)  # all is loaded now
if sys.argv[1] == "limited":
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
record = satbench.evaluate(net, x, y, attacks="pgd-1", eps="1/255", out=None)
print(record.verdicts)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="no limit of memory here")
def test_a_real_allocator_that_refuses_gives_the_same_verdicts() -> None:
    def made(how: str) -> tuple[str, bool]:
        done = subprocess.run(
            [sys.executable, "-c", REAL, how], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, "not enough memory for" in done.stderr

    (limited, was_short), (whole, was_not) = made("limited"), made("whole")
    assert limited == whole
    assert (was_short, was_not) == (True, False)


def test_a_users_function_is_evaluated_with_little_memory(
    fashion: Dataset, shipped: LoadedModel
) -> None:
    net = shipped.module.eval()

    def refuses(x: Tensor) -> Tensor:
        if len(x) > 6:
            raise MemoryError
        logits: Tensor = net(x)
        return logits

    images = fashion.first(12)
    x, y = images.pixels(torch.arange(12).numpy()), images.labels
    ask: Callable[[Tensor], object] = refuses
    record = satbench.evaluate(ask, x, y, attacks="pgd-3", eps="0.1", out=None, progress=False)

    assert record.n == 12
