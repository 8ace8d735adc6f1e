"""The default number of threads: one for small networks, unless the user chose a number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import satbench
from satbench.calling import threads as calling
from satbench.calling.threads import with_threads
from satbench.engine.machine import threads
from satbench.engine.machine.flops import PassFlops
from satbench.engine.machine.threads import one_thread_if_small
from satbench.evaluation.config import eval_config
from satbench.evaluation.cost.forecast import forecast
from satbench.records.record import read_record

CPU = torch.device("cpu")
TINY, LARGE = PassFlops(2_000_000, 2_000_000), PassFlops(300_000_000, 300_000_000)


@pytest.fixture(autouse=True)
def three_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine of three cores without a chosen number of threads."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(calling, "_cores", lambda: 3)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def threads_for(device: torch.device, *flops: PassFlops | None) -> int:
    with one_thread_if_small(device, *flops):
        used = torch.get_num_threads()
    assert torch.get_num_threads() == 3
    return used


def test_only_small_networks_on_a_cpu_get_one_thread() -> None:
    assert threads_for(CPU, TINY) == 1
    assert threads_for(CPU, TINY, TINY) == 1
    assert threads_for(CPU, LARGE) == 3
    assert threads_for(CPU, TINY, LARGE) == 3
    assert threads_for(CPU, None) == 3
    assert threads_for(torch.device("cuda"), TINY) == 3


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_thread_count_in_the_environment_is_kept(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "3")

    assert threads_for(CPU, TINY) == 3


def test_a_thread_count_of_the_caller_is_kept() -> None:
    with with_threads(3):
        assert threads_for(CPU, TINY) == 3
    assert threads_for(CPU, TINY) == 1


def test_a_thread_count_that_the_user_set_in_torch_is_kept() -> None:
    torch.set_num_threads(2)
    with one_thread_if_small(CPU, TINY):
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("most", "used"), [(threads.SMALL, 1), (0, 3)])
def test_the_record_holds_the_thread_count_of_its_run(
    most: int, used: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "SMALL", most)
    found = satbench.evaluate(
        "fmnist-sat-tiny-relu-s0", attacks="pgd-2", n_examples=2, progress=False, out=tmp_path
    )

    assert found.path
    assert read_record(found.path).environment.threads == used
    assert torch.get_num_threads() == 3


def test_a_forecast_is_timed_with_the_threads_of_the_evaluation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("satbench.evaluation.cost.rate._SECONDS", 0.01)
    config = eval_config("fmnist-sat-tiny-relu-s0", attacks=["pgd-2"], n_examples=2)

    assert forecast(config, {}).places[0].machine.name == "cpu, 1 thread"


def test_a_certificate_is_computed_with_one_thread(tmp_path: Path) -> None:
    found = satbench.certify(
        "fmnist-sat-tiny-relu-s0", eps="0.0005", method="ibp", n_examples=1, out=tmp_path
    )

    assert found.certificate.environment.threads == 1


def test_attacks_called_from_python_use_one_thread() -> None:
    used = []

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            used.append(torch.get_num_threads())
            return self.layer(x.flatten(1))

    x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1])
    satbench.attack(Net().eval(), x, y, "pgd-2", eps="0.1")

    assert used[-1] == 1
