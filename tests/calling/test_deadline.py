from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from satbench.calling.deadline import TimeLimitError, time_limit
from satbench.calling.logits import ask


def sleep() -> None:
    time.sleep(60)


def compute() -> None:
    while True:
        pass


def wait_for_a_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def swallow() -> None:
    while True:
        try:
            time.sleep(0.001)
        except Exception:
            continue


@pytest.mark.parametrize("hang", [sleep, compute, wait_for_a_lock, swallow])
def test_endless_code_is_stopped_with_a_sentence(hang: object) -> None:
    with (
        pytest.raises(TimeLimitError, match=r"^expected a batch to take at most 0\.05 seconds"),
        time_limit(0.05),
    ):
        hang()  # type: ignore[operator]


@pytest.mark.parametrize("hang", [compute, swallow])
def test_in_another_thread_code_of_python_is_stopped(hang: object) -> None:
    said: list[str] = []

    def run() -> None:
        try:
            with time_limit(0.05):
                hang()  # type: ignore[operator]
        except TimeLimitError as error:
            said.append(str(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)

    assert len(said) == 1


def hangs_on(bad: Tensor) -> Callable[[Tensor], Tensor]:
    def model(x: Tensor) -> Tensor:
        if any(torch.equal(one, bad) for one in x):
            time.sleep(60)
        return x.flatten(1)

    return model


@pytest.mark.parametrize("row", [0, 3, 7])
def test_the_image_that_a_model_hangs_on_is_found(row: int) -> None:
    x = torch.rand(8, 1, 2, 2)
    with pytest.raises(TimeLimitError) as caught, time_limit(0.05):
        ask(hangs_on(x[row]), x)

    assert caught.value.x is not None
    assert torch.equal(caught.value.x, x[row : row + 1])


@pytest.mark.parametrize("seconds", [None, 60])
def test_code_that_ends_in_time_is_not_interrupted(seconds: float | None) -> None:
    with time_limit(seconds):
        done = True

    assert done


def test_the_callers_own_alarm_comes_back() -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        with time_limit(50):
            pass
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        signal.raise_signal(signal.SIGALRM)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert 90 < left <= 100
    assert rung == [signal.SIGALRM]
