"""A suite whose parts changed under the same name and version: no old unit or record counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import satbench
from satbench.core.errors import SatbenchError
from satbench.engine.journal import RunStore
from satbench.evaluation import run
from satbench.records.record import ModelInfo

INFO = ModelInfo("net", "python", "", "", 1, "0" * 64, {})


@pytest.mark.parametrize(
    ("then", "fresh", "stays"),
    [
        ({"fast": "a"}, False, True),
        ({"fast": "b"}, False, False),
        ({}, False, False),
        ({"fast": "a", "quick": "c"}, False, False),
        ({"fast": "a"}, True, False),
    ],
)
def test_a_stopped_run_goes_on_only_with_the_same_parts(
    then: dict[str, str], fresh: bool, stays: bool, tmp_path: Path
) -> None:
    store = RunStore(tmp_path, "run", (1, 1, 2, 2))
    with store.claimed():
        store.begin(INFO, False, {"fast": "a"})
        for folder in (store, store.within("part")):
            (folder.folder / "001-000000000.npz").touch()
        store.begin(INFO, fresh, then)

    assert [stays] * 2 == [
        (folder / "001-000000000.npz").exists() for folder in (store.folder, store.folder / "part")
    ]


def test_a_record_of_other_parts_under_the_same_name_is_refused(
    small_net: Callable[..., nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = small_net()
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    asked = {"attacks": "quick", "norm": "linf", "eps": "0.01", "out": str(tmp_path)}
    record = satbench.evaluate(net, x, net(x).argmax(1), **asked)
    assert record.suites
    again = satbench.evaluate(net, x, net(x).argmax(1), **asked)
    monkeypatch.setattr(run, "suite_digests", lambda specs: {"quick": "0" * 64})

    assert record.identity == again.identity
    with pytest.raises(SatbenchError, match="to be of the suite quick as it is now"):
        satbench.evaluate(net, x, net(x).argmax(1), **asked)
