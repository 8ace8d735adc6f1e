"""A simulation of many workers: which worker does which unit, by the rules of the runner.

The rules are those of `satbench.engine.runner` and of Ray's workers.  Each worker starts at another
model and goes through all models.  It takes units of the current stage, and at the end of the stage
it waits for the units of others.  The times of units are given.
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
    """The costs outside units, in seconds.

    `start_up` is that of a worker, `entry` that of loading a model (weights, preflight), `conclude`
    that of writing a record.  `latency` is the time of one call of the file system: a unit makes
    `_CALLS` calls, and `_CALLS_A_WORKER` more for each other worker on the same model, whose claims
    and results it reads.  A share `slow` of the workers, rounded down, needs `slowness` times as
    long.
    """

    start_up: float = 0.0
    entry: float = 0.0
    conclude: float = 0.0
    latency: float = 0.0
    slow: float = 0.0
    slowness: float = 2.0


_CALLS = 12  # claim, list the folder, write, sync twice, rename, release
_CALLS_A_WORKER = 5  # another worker's claim, and its result


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
    """Return the seconds until `workers` workers have written every record.

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
