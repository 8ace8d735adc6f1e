"""`satbench.train`: a user's own network, images and parts, in the loop of the command line."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_model
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset, WeightedRandomSampler

import satbench
from satbench.core.noise import generator_for
from satbench.data import Dataset, load_dataset
from satbench.model_zoo.card import read_card
from satbench.model_zoo.weights import digest_weights
from satbench.recipes import TrainConfig
from satbench.training import epochs
from satbench.training.loop import train as loop
from satbench.training.progress import Step
from satbench.training.watch import EpochMetrics

ROOT = Path(__file__).parents[2]
Trained = Callable[..., Any]


def net(pixels: int = 64, classes: int = 3, seed: int = 0) -> nn.Module:
    """Return a small network whose first layer normalises."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(),
            nn.BatchNorm1d(pixels),
            nn.Linear(pixels, 8),
            nn.ReLU(),
            nn.Linear(8, classes),
        )


@pytest.fixture(scope="module")
def arrays(toy: Dataset) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(toy.pixels(np.arange(len(toy)))), torch.from_numpy(toy.labels)


@pytest.fixture
def run(tmp_path: Path, arrays: tuple[Tensor, Tensor], config: TrainConfig) -> Trained:
    """Return a function that trains on the toy data for two epochs of four steps."""

    def trains(model: nn.Module | str | None = None, data: Any = None, **given: Any) -> Any:
        given = {"recipe": config, "out": tmp_path, "device": "cpu", "quiet": True, **given}
        return satbench.train(model or net(), arrays if data is None else data, **given)

    return trains


@dataclass
class Log:
    """Remembers the steps and epochs that it got."""

    steps: list[tuple[int, int, int]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    left: list[float] = field(default_factory=list)
    epochs: list[EpochMetrics] = field(default_factory=list)

    def on_step(self, step: Step) -> None:
        self.steps.append((step.epoch, step.step, step.steps))
        self.losses.append(step.loss)
        self.rates.append(step.learning_rate)
        self.left.append(step.seconds_left)

    def on_epoch(self, metrics: EpochMetrics) -> None:
        self.epochs.append(metrics)


def test_a_named_architecture_trains_to_the_same_weights_as_on_the_command_line(
    run: Trained, toy: Dataset, config: TrainConfig, tmp_path: Path
) -> None:
    ours = run("tiny(width=2)", (torch.from_numpy(toy.pixels(np.arange(40))), toy.labels))
    theirs = loop(config, toy, tmp_path / "loop", torch.device("cpu"))

    assert digest_weights(ours.model) == digest_weights(theirs.model)
    assert read_card(ours.card).weights_digest == digest_weights(theirs.model)


def test_a_copy_of_a_users_network_is_trained(run: Trained) -> None:
    network = net()
    before = digest_weights(network)

    trained = run(network)

    assert digest_weights(network) == before != digest_weights(trained.model)
    assert network.training
    assert not trained.model.training
    assert [metrics.epoch for metrics in trained.history] == [1, 2]


def test_the_folder_of_a_users_network_describes_it_and_holds_no_card(run: Trained) -> None:
    trained = run()
    told, again = json.loads(trained.card.read_text()), net(seed=1)
    load_model(again, trained.path)

    assert digest_weights(again) == told["weights_digest"] == digest_weights(trained.model)
    assert told["network"] == "torch.nn.modules.container.Sequential"
    assert "architecture" not in told
    assert not told["training"]["command"]
    with pytest.raises(satbench.SatbenchError, match="cannot build"):
        read_card(trained.card)
    assert b"architecture" not in (trained.path.parent / "best.safetensors").read_bytes()


def test_the_same_call_finds_the_finished_run(run: Trained) -> None:
    first, log = run(), Log()

    again = run(callbacks=[log])

    assert digest_weights(first.model) == digest_weights(again.model)
    assert log.steps == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "parts",
    [
        {},
        pytest.param(
            {"optimizer": lambda parameters: torch.optim.Adam(parameters, 1e-2)},
            marks=pytest.mark.slow,
        ),
        {"scheduler": lambda optimizer, steps: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.1, total_steps=steps
        )},
        pytest.param(
            {"loss": lambda logits, y: F.multi_margin_loss(logits, y, reduction="none")},
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_a_stopped_run_ends_with_the_same_weights(
    run: Trained, parts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop:
        def on_step(self, step: Step) -> None:
            if (step.epoch, step.step) == (2, 3):
                raise KeyboardInterrupt

    whole = run(out=tmp_path / "whole", **parts)
    monkeypatch.setattr(epochs, "SAVE_EVERY_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(callbacks=[Stop()], **parts)
    log = Log()
    trained = run(callbacks=[log], **parts)

    assert log.steps == [(2, 4, 4)]
    assert digest_weights(trained.model) == digest_weights(whole.model)


@pytest.mark.parametrize(
    "loss",
    [
        F.cross_entropy,
        nn.CrossEntropyLoss(torch.ones(3)),
        lambda logits, y: F.cross_entropy(logits, y, reduction="none"),
    ],
)
def test_a_loss_may_be_a_mean_a_module_or_a_value_per_image(
    run: Trained, loss: Callable[[Tensor, Tensor], Tensor]
) -> None:
    own, recipe = run(loss=loss, name="own"), run(name="recipe")

    for ours, theirs in zip(own.model.parameters(), recipe.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert any("loss is the user's own" in note for note in own.notes)


def test_a_users_optimiser_takes_the_same_step_as_by_hand(
    run: Trained, arrays: tuple[Tensor, Tensor]
) -> None:
    log = Log()
    given = {"attack": "", "epochs": 1, "batch_size": 32, "held_out": 8}

    trained = run(
        optimizer=lambda p: torch.optim.Adam(p, 0.02), callbacks=[log], channels_last=False, **given
    )

    by_hand, (x, y) = net(), arrays
    optimizer = torch.optim.Adam(by_hand.parameters(), 0.02)
    order = torch.from_numpy(generator_for(0, "order", 0).permutation(32))
    loss = F.cross_entropy(by_hand(x[:32][order]), y[:32][order])
    loss.backward()
    optimizer.step()
    assert log.losses == [pytest.approx(loss.item(), rel=1e-6)]
    assert log.rates == [0.02]
    for ours, theirs in zip(trained.model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_schedule_steps_once_after_each_step_of_the_optimiser(run: Trained) -> None:
    log = Log()

    run(
        optimizer=lambda p: torch.optim.SGD(p, 1.0),
        scheduler=lambda o, steps: torch.optim.lr_scheduler.LambdaLR(o, lambda k: 1 - k / steps),
        callbacks=[log],
    )

    assert log.rates == pytest.approx([1 - k / 8 for k in range(8)])


def test_callbacks_are_called_at_all_steps_and_epochs(run: Trained) -> None:
    log = Log()

    trained = run(callbacks=[log])

    assert log.steps == [(epoch, step, 4) for epoch in (1, 2) for step in (1, 2, 3, 4)]
    assert log.epochs == trained.history
    assert np.mean(log.losses[:4]) == pytest.approx(trained.history[0].loss)
    assert log.left[-1] == 0 < log.left[0]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", ["file", "state dict", "checkpoint"])
def test_training_starts_from_given_weights(run: Trained, kind: str, tmp_path: Path) -> None:
    first = run(name="first")
    init: Any = {
        "file": first.path,
        "state dict": first.model.state_dict(),
        "checkpoint": first.path.parent / "checkpoint.pt",
    }[kind]

    second = run(net(seed=5), init=init, name="second", learning_rate=1e-12, weight_decay=0.0)

    for name, theirs in dict(first.model.named_parameters()).items():
        torch.testing.assert_close(second.model.get_parameter(name), theirs)
    assert any("starts from" in note for note in second.notes)


def test_a_resumed_run_reports_other_initial_weights(run: Trained) -> None:
    run()

    assert any("other weights" in note for note in run(net(seed=9)).notes)


@pytest.mark.parametrize(
    "other",
    [{"loss": F.cross_entropy}, {"optimizer": torch.optim.SGD}, {"model": net().append(nn.ReLU())}],
)
def test_a_run_is_not_resumed_with_other_parts(run: Trained, other: dict[str, Any]) -> None:
    run(name="same")

    with pytest.raises(satbench.SatbenchError, match="holds a run"):
        run(name="same", **other)


def test_shared_weights_are_trained_and_saved(run: Trained) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(64, 64)
            self.b = self.a
            self.head = nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.b(self.a(x.flatten(1)).relu()))
            return out

    trained = run(Tied())

    assert torch.equal(trained.model.a.weight, trained.model.b.weight)


def pictures(folder: Path) -> tuple[Tensor, Tensor]:
    """Write 24 images of 32 × 32 in two classes; return them in the order of the data set."""
    rng = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (folder / kind).mkdir(parents=True)
        for k in range(12):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{k}.png")
    read = load_dataset(f"imagefolder:{folder}@none", "train")
    return torch.from_numpy(read.images), torch.from_numpy(read.labels)


@pytest.mark.parametrize("augment", [pytest.param("none", marks=pytest.mark.slow), "crop-flip"])
def test_the_same_images_in_any_form_train_to_the_same_weights(
    run: Trained, tmp_path: Path, augment: str
) -> None:
    stored, y = pictures(tmp_path / "tree")
    np.savez(tmp_path / "train.npz", x=stored.numpy(), y=y.numpy())
    x = stored.float() / 255
    given = {"held_out": 8, "batch_size": 8, "augment": augment, "workers": 0}
    trained = {
        kind: run(net(3072, 2), data, name=kind, **given)
        for kind, data in {
            "folder": f"imagefolder:{tmp_path / 'tree'}@none",
            "npz": f"arrays:{tmp_path / 'train.npz'}",
            "loader": DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True, drop_last=True),
            "dataset": TensorDataset(x, y),
            "arrays": (x.numpy(), y.numpy()),
        }.items()
    }

    assert len({digest_weights(one.model) for one in trained.values()}) == 1
    assert len({tuple(m.held_out_pgd10 for m in one.history) for one in trained.values()}) == 1


class Draws(TensorDataset):
    """Images that differ each time they are read."""

    def __getitem__(self, row: int) -> tuple[Tensor, ...]:
        x, y = super().__getitem__(row)
        return (x + torch.rand(())) / 2, y


X, Y = torch.rand(40, 1, 8, 8), torch.arange(40) % 3


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"model": net}, "model"),
        ({"model": nn.Flatten()}, "trainable weights"),
        ({"model": net(classes=2)}, "classes"),
        ({"model": net(pixels=63)}, "63"),
        ({"data": (X * 2 - 1, Y)}, r"pixels in \[0, 1\]"),
        ({"data": (X * 255, Y)}, "divide them by 255"),
        ({"data": (X, Y[:39])}, "one label"),
        ({"data": (X, Y, Y)}, r"\(x, y\)"),
        ({"data": X}, "arrays"),
        ({"data": TensorDataset(X)}, "pairs"),
        ({"data": TensorDataset(X - 0.5, Y)}, r"pixels in \[0, 1\]"),
        ({"data": Draws(X, Y)}, "same each time"),
        ({"data": DataLoader(TensorDataset(X, Y), sampler=WeightedRandomSampler([1.0] * 40, 40))},
         "WeightedRandomSampler"),
        ({"data": Subset(TensorDataset(X, Y), [0, 1, 2])}, "training images"),
        ({"data": "cifar11"}, "cifar10"),
        ({"recipe": "fmnist-sta"}, "fmnist-sat"),
        ({"recipe": 3}, "recipe"),
        ({"epoch": 3}, "epochs"),
        ({"epochs": "3"}, "whole number"),
        ({"architecture": "tiny"}, "model"),
        ({"dataset": "cifar10"}, "data"),
        ({"activation": "silu"}, "activation"),
        ({"attack": "pdg-3"}, "pgd"),
        ({"attack": 3}, "attack"),
        ({"attack": "autoattack"}, "used in training"),
        ({"loss": 3}, "loss"),
        ({"loss": nn.CrossEntropyLoss}, "loss"),
        ({"loss": lambda logits, y: logits}, "shape"),
        ({"loss": lambda logits, y: 1.0}, "tensor"),
        ({"loss": lambda logits, y: F.cross_entropy(logits.detach(), y)}, "gradient"),
        ({"optimizer": torch.optim.SGD(net().parameters(), 0.1)}, "function"),
        ({"optimizer": lambda p: torch.optim.SGD(net().parameters(), 0.1)}, "others"),
        ({"optimizer": lambda p: 3}, "Optimizer"),
        ({"optimizer": torch.optim.LBFGS}, "closure"),
        ({"scheduler": lambda o, steps: torch.optim.lr_scheduler.ReduceLROnPlateau(o)}, "metric"),
        ({"scheduler": 3}, "function"),
        ({"init": "missing.pt"}, "missing"),
        ({"init": 3}, "init"),
        ({"init": {"x": 3}}, "state dict"),
        ({"init": net(pixels=63).state_dict()}, "weights"),
        ({"callbacks": Log()}, "list"),
        ({"callbacks": [Log]}, "object"),
        ({"callbacks": [print]}, "on_step"),
        ({"name": 3}, "name"),
        ({"out": None}, "out"),
        ({"device": "gpu"}, "device"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_refused_in_one_sentence(
    run: Trained, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(satbench.SatbenchError, match=said) as caught:
        run(**wrong)

    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_example_trains_its_own_network(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "train_own_network.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    assert float(done.stdout.rpartition(" ")[2].strip().rstrip("%")) > 60


def test_the_loggers_in_the_manual_receive_steps_and_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    class Run:
        logged: ClassVar[list[dict[str, float]]] = []

        def log(self, values: dict[str, float]) -> None:
            self.logged.append(values)

    def train(*given: Any, **more: Any) -> Any:
        few: dict[str, Any] = {
            "epochs": 2,
            "batch_size": 8,
            "held_out": 8,
            "out": tmp_path / type(more["callbacks"][0]).__name__,
        }
        return satbench.train(*given, **few, quiet=True, **more)

    stub = SimpleNamespace(init=lambda **settings: Run())
    monkeypatch.setitem(sys.modules, "wandb", cast(ModuleType, stub))
    monkeypatch.chdir(tmp_path)
    manual = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in manual.split("```python\n")]
    names = {"satbench": SimpleNamespace(train=train), "network": net(), "x": X, "y": Y}
    for code in blocks:
        if "(Callback)" in code:
            exec(code, names)

    events = EventAccumulator("logs")
    events.Reload()
    assert 2 == len(events.Scalars("held-out PGD-10"))
    assert {"loss", "learning rate"} == set(Run.logged[0])
    assert 8 == sum("loss" in values for values in Run.logged)
    assert [1, 2] == [values["epoch"] for values in Run.logged if "epoch" in values]


@pytest.mark.slow
def test_the_logger_in_the_manual_writes_an_offline_weights_and_biases_run(
    tmp_path: Path,
) -> None:
    pytest.importorskip("wandb")
    manual = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in manual.split("```python\n")]
    (code,) = [block for block in blocks if "import wandb" in block]
    given = f"""
import torch, torch.nn as nn, satbench
from satbench.training.api import Callback
network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 3))
x, y = torch.rand(40, 1, 6, 6), torch.arange(40) % 3
train = satbench.train
satbench.train = lambda *given, **more: train(
    *given, epochs=2, batch_size=8, held_out=8, quiet=True, out="out", **more)
{code}
import wandb
print(dict(wandb.run.summary))
"""
    env = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    words = [sys.executable, "-c", given]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)

    assert 0 == done.returncode, done.stderr
    summary = ast.literal_eval(done.stdout.strip().splitlines()[-1])
    assert {"loss", "learning rate", "held-out PGD-10", "epoch"} <= set(summary)
    assert 2 == summary["epoch"]
    assert 1 == len(list(tmp_path.glob("wandb/offline-run-*/run-*.wandb")))
