"""A run of many workers, simulated: who does which unit when, by the rules of the runner.

The rules are those of `satbench.engine.runner` and of the workers of Ray: a worker goes through the
models from a place of its own, takes units of the stage that is under way, and waits at the end of
the stage for those that others do.  Times are given; nothing is computed but their sums.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Stages = Sequence[Sequence[float]]
"""The seconds of each unit of each stage of one model."""


@dataclass(frozen=True)
class Costs:
    """What is no unit: seconds.

    `start_up` of a worker, `entry` of a worker into a model (weights, preflight), `conclude` of a
    record.  `latency` is that of one call of the file system: a unit takes `_CALLS` of them, and
    `_CALLS_A_WORKER` more for each other worker at the model, whose claims and results it looks at.
    Of the workers a share `slow`, rounded down, takes `slowness` times as long for units.
    """

    start_up: float = 0.0
    entry: float = 0.0
    conclude: float = 0.0
    latency: float = 0.0
    slow: float = 0.0
    slowness: float = 2.0


_CALLS = 12  # claim, look around, write, sync twice, rename, let go
_CALLS_A_WORKER = 5  # a claim of another's unit, and its result


@dataclass
class _Model:
    stages: list[list[float]]
    stage: int = 0
    running: int = 0
    waiting: list[int] = field(default_factory=list)
    inside: set[int] = field(default_factory=set)

    @property
    def over(self) -> bool:
        return self.stage >= len(self.stages)


def makespan(models: Sequence[Stages], workers: int, costs: Costs, seed: int = 0) -> float:
    """Return the seconds until every record is written, by so many workers.

    >>> makespan([[[1.0, 1.0], [1.0]]], 1, Costs())
    3.0
    >>> makespan([[[1.0, 1.0], [1.0]]], 2, Costs())
    2.0
    """
    work = [_Model([sorted(units) for units in stages if len(units)]) for stages in models]
    rng = np.random.default_rng(seed)
    pace = np.where(rng.permutation(workers) < int(costs.slow * workers), costs.slowness, 1.0)
    totals = np.cumsum([sum(map(sum, stages)) for stages in models])
    first = [
        int(np.searchsorted(totals, totals[-1] * w / workers, "right")) for w in range(workers)
    ]
    place = [0] * workers
    end = 0.0
    # Events: (time, number, worker, model whose unit is done or -1).
    events = [(costs.start_up * pace[w], w, w, -1) for w in range(workers)]
    heapq.heapify(events)
    count = workers

    def push(time: float, worker: int, done: int = -1) -> None:
        nonlocal count
        count += 1
        heapq.heappush(events, (time, count, worker, done))

    while events:
        now, _, worker, done = heapq.heappop(events)
        if done >= 0:
            model = work[done]
            model.running -= 1
            if not model.running and not model.stages[model.stage]:
                model.stage += 1
                if model.over:
                    now += costs.conclude * pace[worker]
                for other in model.waiting:
                    push(now, other)
                model.waiting.clear()
        end = max(end, now)
        if place[worker] == len(work):
            continue
        number = (first[worker] + place[worker]) % len(work)
        model = work[number]
        if model.over:
            model.inside.discard(worker)
            place[worker] += 1
            push(now, worker)
        elif worker not in model.inside:
            model.inside.add(worker)
            push(now + costs.entry * pace[worker], worker)
        elif model.stages[model.stage]:
            seconds = model.stages[model.stage].pop()
            calls = _CALLS + _CALLS_A_WORKER * (len(model.inside) - 1)
            model.running += 1
            push(now + seconds * pace[worker] + calls * costs.latency, worker, number)
        else:
            model.waiting.append(worker)
    return float(end)
