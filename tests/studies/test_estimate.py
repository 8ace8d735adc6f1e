"""The estimate of the remaining time of a study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from satbench.studies import Study, estimate
from satbench.studies.run_file import Outcome
from satbench.studies.runner import Machine, Runner
from satbench.studies.store import Places


def test_the_time_of_a_pass_does_not_depend_on_other_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, own = iter(range(0, 1000, 10)), iter(range(100))
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: float(next(wall)))
    monkeypatch.setattr(estimate.time, "process_time", lambda: float(next(own)))

    assert 1.0 == estimate._seconds(lambda: None, torch.device("cpu"))


def test_the_passes_of_an_audit_are_estimated_from_other_draws(done: Places) -> None:
    run = next(iter(done.runs().values()))
    audited = Outcome(
        ("fast", "audit(sample=2,weakest=1,draw=7)"), "linf:0.1", "toy", "d", 0, "ox", 80, 20, "r"
    )
    seen = estimate._passes_seen([replace(run, outcomes=(audited,))])

    assert (40.0, 10.0) == seen[estimate._undrawn(("fast", "audit(sample=2,weakest=1,draw=9)"))]


def test_an_estimate_uses_the_thread_count_of_the_study(
    done: Places, made_study: Study, make_runner: Callable[[Study, Places], Runner]
) -> None:
    made = make_runner(made_study, done)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        Runner(made.plan, done, made.images, Machine("cpu", 1, quiet=True))
        assert 1 == torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
