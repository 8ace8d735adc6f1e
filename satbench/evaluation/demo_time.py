"""The duration of a list of evaluations: passes from published records × measured time of one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from statistics import fmean

import torch

from satbench.board.definition import board_definitions
from satbench.calling.devices import choose_device
from satbench.core.specs import split_spec
from satbench.model_zoo.card import zoo_card
from satbench.models import load_model, request_model
from satbench.records.record import Record, read_record

_PROBE = 250
"""Images in the forward and backward pass that are timed: a typical batch."""
_START = 1.0
"""Seconds that an evaluation takes besides its search: loading, preflight, diagnosis."""


@dataclass(frozen=True)
class Work:
    """An evaluation to run: attacks in order on a shipped model and the first `n` images."""

    model: str
    attacks: tuple[str, ...]
    n: int


class Clock:
    """Estimates how long the rest of a list of evaluations will take.

    The passes of each come from a published record of the model, scaled to the images and steps.
    The seconds for a pass are measured: first by one forward and backward of the first model, then
    by the finished evaluations.
    """

    def __init__(self, jobs: Sequence[Work], device: str) -> None:
        self._passes = {job: sum(known_passes(job)) for job in jobs}
        self._todo = list(jobs)
        self._done: list[tuple[Work, float]] = []
        self._rate = _seconds_a_pass(jobs[0].model, device)

    def seconds_left(self) -> float:
        """Return the estimate for all evaluations that are not finished, in seconds."""
        passes = sum(self._passes[job] for job, _ in self._done)
        searched = sum(max(seconds - _START, 0.0) for _, seconds in self._done)
        rate = searched / passes if searched > _START else self._rate
        return sum(_START + rate * self._passes[job] for job in self._todo)

    def left(self) -> str:
        """Return the estimate for people, `about 40 s to go`."""
        seconds = self.seconds_left()
        if seconds < 90:
            return f"about {max(5, 5 * round(seconds / 5))} s to go"
        return f"about {round(seconds / 60)} min to go"

    @contextmanager
    def working(self, job: Work) -> Iterator[None]:
        """Measure an evaluation while it runs."""
        began = time.monotonic()
        yield
        self._todo.remove(job)
        self._done.append((job, time.monotonic() - began))


def known_passes(job: Work) -> list[float]:
    """Return the passes (forward and backward) of each attack of an evaluation, from records.

    An attack that no record of the model has counts like the mean of the others.

    >>> passes = known_passes(Work("fmnist-sat-tiny-relu-s0", ("pgd-50", "pgd-20"), 100))
    >>> round(passes[0] / passes[1], 3)
    2.5
    """
    found = [_passes_an_image(attack, _records(job.model)) for attack in job.attacks]
    known = [passes for passes in found if passes is not None]
    other = fmean(known) if known else 500.0
    return [job.n * (other if passes is None else passes) for passes in found]


@cache
def _records(model: str) -> tuple[Record, ...]:
    paths = [path for one in board_definitions() for path in one.records.glob(f"{model}-*.json")]
    found = (read_record(path) for path in sorted(paths))
    return tuple(record for record in found if record.model.name == model)


def _passes_an_image(attack: str, records: Sequence[Record]) -> float | None:
    """Return the passes of an attack per image; those of PGD scale with its steps."""
    family, _, steps = attack.partition("-")
    for record in records:
        for spec, numbers in record.attack_stages():
            name, arguments = split_spec(spec)
            if name != family:
                continue
            stages = [record.stages[k - 1] for k in numbers]
            passes = sum(
                one.forwards + one.backwards + one.source_forwards + one.source_backwards
                for one in stages
            )
            scale = int(steps) / int(arguments["steps"]) if steps.isdigit() else 1.0
            return scale * passes / record.n
    return None


def _seconds_a_pass(name: str, device: str) -> float:
    chosen = choose_device(device)
    model = load_model(request_model(name), classes=10).module.to(chosen)
    x = torch.full((_PROBE, *zoo_card(name).input_shape), 0.5, device=chosen, requires_grad=True)
    torch.autograd.grad(model(x).sum(), x)  # the first call also warms up
    began = time.monotonic()
    torch.autograd.grad(model(x).sum(), x)
    return (time.monotonic() - began) / (2 * _PROBE)
