"""Tasks of several processes: their configs, and how much work to expect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from satbench.evaluation.config import DEFAULT_BATCH, DEFAULT_EXAMPLES, EvalConfig

Task = tuple[Callable[..., Any], tuple[Any, ...]]
"""A module-level function and its arguments, both picklable; it also takes `shared=…`."""


def configs_of(given: object) -> Iterator[EvalConfig]:
    """Yield the configs in tasks, arguments or configs; for a matrix, one for each source."""
    if isinstance(given, EvalConfig):
        yield given
    elif isinstance(given, list | tuple):
        for one in given:
            yield from configs_of(one)
    elif isinstance(base := getattr(given, "base", None), EvalConfig):
        yield from [base] * len(getattr(given, "sources", (0,)))


def changed(given: Any, **changes: Any) -> Any:
    """Return tasks, arguments or a config with a new `device` or `out` in each config."""
    if isinstance(given, EvalConfig):
        return replace(given, **changes)
    if isinstance(given, list | tuple):
        return type(given)(changed(one, **changes) for one in given)
    if isinstance(base := getattr(given, "base", None), EvalConfig):
        return replace(given, base=replace(base, **changes))
    return given


def default_count(configs: Iterator[EvalConfig] | Sequence[EvalConfig], cores: int) -> int:
    """Return how many processes do the work by default.

    There is one for each core, but at most half the units of a stage, so that each process has at
    least two: later stages have fewer images.  There is only one if a GPU computes, and with
    --until-interval, which does one unit at a time.
    """
    configs = list(configs)
    if cores < 2 or any(config.until is not None or config.fresh for config in configs):
        return 1
    units = sum(
        -(-(config.n_examples or DEFAULT_EXAMPLES) // (config.batch_size or DEFAULT_BATCH))
        for config in configs
    )
    if units < 4 or not all(_on_cpu(config) for config in configs):
        return 1
    return min(cores, units // 2)


def _on_cpu(config: EvalConfig) -> bool:
    if config.device == "auto":
        import torch

        return not torch.cuda.is_available()
    return config.device == "cpu"


def in_order(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks, those with the longest expected time first."""
    return sorted(tasks, key=expected_cost, reverse=True)


def start_of(tasks: Sequence[Task], number: int, count: int) -> int:
    """Return the task with which worker `number` of `count` begins, to share the work evenly.

    The expected costs of all tasks are laid end to end, and the workers spread over them.
    """
    costs = [expected_cost(task) for task in tasks]
    place, so_far = sum(costs) * (number % count) / count, 0.0
    for index, cost in enumerate(costs):
        so_far += cost
        if so_far > place:
            return index
    return 0


def expected_cost(task: Task) -> float:
    """Return a relative cost of a task: bytes of weights × images × attacks.

    A model whose weights are not a local file counts as one byte, so its tasks come last.
    """
    return float(
        sum(
            _bytes_of(config.model.weights)
            * (config.n_examples or DEFAULT_EXAMPLES)
            * len(config.attacks)
            for config in configs_of(task)
        )
    )


def _bytes_of(weights: Path | None) -> int:
    try:
        return weights.stat().st_size if weights else 1
    except OSError:
        return 1
