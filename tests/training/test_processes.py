"""Several processes in one run have the same loss curve as one process with the same batches.

They add the same numbers in another order, so floats differ in their last digits.  Over two
epochs of such a small run the losses differ by less than 1e-5 (about 1e-7 was observed).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from satbench.core.errors import SatbenchError
from satbench.data import Dataset, ImageTree
from satbench.recipes import TrainConfig
from satbench.training.loop import train
from satbench.training.ranks import ALONE, Ranks, joined
from satbench.training.update.sync_norm import synchronised

CPU = torch.device("cpu")
TOLERANCE = 1e-5


def in_processes(job: Callable[[Ranks], Any], folder: Path, world: int = 2) -> list[Any]:
    """Run `job` in forked processes that communicate by gloo; return the result of each."""
    folder.mkdir(parents=True, exist_ok=True)
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                store = f"file://{folder / 'store'}"
                dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
                answer = job(Ranks(rank, world))
                (folder / f"{rank}.json").write_text(json.dumps(answer))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * world
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


def summary(config: TrainConfig, data: Dataset, folder: Path, ranks: Ranks = ALONE) -> list[Any]:
    """Train, and return the metrics of each epoch and all weights."""
    done = train(config, data, folder, CPU, ranks=ranks)
    curve = [[m.loss, m.train_accuracy, m.held_out_clean, m.held_out_pgd10] for m in done.history]
    state = done.model.state_dict().values()
    return [curve, torch.cat([t.double().flatten() for t in state]).tolist()]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param(
            {"objective": "trades", "beta": 6.0, "attack_mode": "eval"}, marks=pytest.mark.slow
        ),
        {"accumulate": 2, "awp": 0.01, "augment": "crop-flip", "gradient_clip": 1.0},
    ],
    ids=["pgd-1", "trades", "parts"],
)
def test_two_processes_have_the_loss_curve_of_one(
    changes: dict[str, Any], config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    check_two(replace(config, **changes), toy, tmp_path)


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one_from_a_folder_of_images(
    from_folder: TrainConfig, tree: ImageTree, tmp_path: Path
) -> None:
    check_two(from_folder, replace(tree, workers=1), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("threat", ["linf:0.1", "l2:0.5"])  # uniform starts, and normal starts
def test_one_two_and_eight_processes_agree(
    threat: str, config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    changed = replace(config, batch_size=16, sync_batch_norm=True, threat=threat)
    alone = summary(changed, toy, tmp_path / "1")
    for world in (2, 8):
        told = in_processes(
            lambda ranks: summary(changed, toy, tmp_path / f"{ranks.world}", ranks),
            tmp_path / f"told-{world}",
            world,
        )
        assert all(one == told[0] for one in told)
        for together, single in zip(told[0], alone, strict=True):
            np.testing.assert_allclose(together, single, rtol=0, atol=TOLERANCE)


def check_two(config: TrainConfig, data: Dataset, tmp_path: Path) -> None:
    """Train in one process and in two, and compare curves and weights."""
    changed = replace(config, sync_batch_norm=True)
    alone = summary(changed, data, tmp_path / "alone")
    first, second = in_processes(
        lambda ranks: summary(changed, data, tmp_path / "both", ranks), tmp_path / "told"
    )

    assert first == second
    for together, single in zip(first, alone, strict=True):
        np.testing.assert_allclose(together, single, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_can_be_resumed_with_another_number_of_processes(
    before: int, after: int, config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    changed = replace(config, sync_batch_norm=True)
    whole = summary(changed, toy, tmp_path / "whole")
    began = in_processes(
        lambda ranks: until_an_epoch(changed, toy, tmp_path / "run", ranks),
        tmp_path / "began",
        before,
    )
    ended = in_processes(
        lambda ranks: summary(changed, toy, tmp_path / "run", ranks), tmp_path / "ended", after
    )

    assert len(whole[0]) > 1
    assert began == [1] * before
    for goes_on, at_once in zip(ended[0], whole, strict=True):
        np.testing.assert_allclose(goes_on, at_once, rtol=0, atol=TOLERANCE)


def until_an_epoch(config: TrainConfig, data: Dataset, folder: Path, ranks: Ranks) -> int:
    """Train until the second epoch begins, and stop there as Ctrl-C would."""
    epochs = 0

    def stop(epoch: int, step: int, steps: int) -> None:
        nonlocal epochs
        epochs = epoch
        if epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, data, folder, CPU, on_step=stop, ranks=ranks)
    return epochs


@pytest.mark.slow
def test_without_synchronised_batch_norm_all_processes_have_the_same_network(
    config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    alone = summary(config, toy, tmp_path / "alone")
    first, second = in_processes(
        lambda ranks: summary(config, toy, tmp_path / "both", ranks), tmp_path / "told"
    )

    assert first == second
    assert abs(np.array(first[0]) - np.array(alone[0])).max() > 10 * TOLERANCE


def test_synchronised_batch_norm_equals_batch_norm_over_all_images(tmp_path: Path) -> None:
    def outcome(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        (y**3).sum().backward()
        assert leaf.grad is not None
        return [y.detach(), leaf.grad, layer.running_mean, layer.running_var]

    def layer() -> nn.Module:
        made = nn.BatchNorm2d(3).double()
        nn.init.uniform_(made.weight)
        return made

    torch.manual_seed(0)
    x, plain = torch.rand(4, 3, 2, 5, dtype=torch.float64), layer()
    shared = nn.BatchNorm2d(3).double()
    shared.load_state_dict(plain.state_dict())
    wanted = outcome(plain, x)
    # Unequal shares: statistics must weight images equally, not processes.
    told = in_processes(
        lambda ranks: [
            part.tolist() for part in outcome(synchronised(shared, CPU), (x[:1], x[1:])[ranks.rank])
        ],
        tmp_path,
    )

    for place in (0, 1):
        joint = np.concatenate([told[0][place], told[1][place]])
        np.testing.assert_allclose(joint, wanted[place].numpy(), rtol=1e-9, atol=1e-12)
    for place in (2, 3):
        for rank in (0, 1):
            np.testing.assert_allclose(told[rank][place], wanted[place].numpy(), rtol=1e-12)


def test_every_part_of_a_batch_is_shared_among_the_processes() -> None:
    assert [Ranks(rank, 2).share(8, 2).tolist() for rank in range(2)] == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
    ]
    assert Ranks().share(4, 2).tolist() == [0, 1, 2, 3]


def test_a_batch_that_cannot_be_divided_evenly_is_refused() -> None:
    with pytest.raises(
        SatbenchError, match=r"^expected a batch_size that is a multiple of 3 processes × 2 par"
    ):
        Ranks(0, 3).share(8, 2)


def test_without_torchrun_there_is_one_process() -> None:
    with joined("cpu") as (ranks, device):
        assert (ranks, device, ranks.leads) == (Ranks(0, 1), CPU, True)


@pytest.mark.slow
def test_torchrun_trains_one_model_and_its_card_holds_the_command(tmp_path: Path) -> None:
    words = (
        *("-m", "satbench", "train", "--recipe", "fmnist-sat", "--arch", "tiny(width=1)"),
        *("--epochs", "1", "--set", "batch_size=2048", "--set", "sync_batch_norm=true"),
        *("--set", "held_out=250", "--threads", "1", "--device", "cpu", "--name", "mine", "--json"),
    )
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    lines = []
    for program, out in ((launcher, tmp_path / "two"), ((sys.executable,), tmp_path / "one")):
        done = subprocess.run(
            (*program, *words, "--out", str(out)),
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        lines.append(json.loads(line))
    card = json.loads((tmp_path / "two" / "mine" / "mine.json").read_text())

    assert lines[0]["loss"] == pytest.approx(lines[1]["loss"], abs=1e-4)
    assert card["training"]["command"].startswith("torchrun --nproc-per-node 2 -m satbench train ")
    assert "--set sync_batch_norm=true" in card["training"]["command"]
