"""Saved files are finite, complete and checked; a divergence says how to continue."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from satbench.core.digests import digest_file
from satbench.core.errors import SatbenchError
from satbench.data import Dataset
from satbench.model_zoo.weights import digest_weights, load_weights, save_weights
from satbench.recipes import TrainConfig
from satbench.training import epochs
from satbench.training.loop import Trained, fresh_model, train
from satbench.training.saved.checkpoint import (
    BEFORE,
    STATE,
    Checkpoint,
    Checkpoints,
    CorruptError,
    NotFiniteError,
    check_finite,
    read_checkpoint,
)
from satbench.training.update.objectives import Objective
from satbench.training.update.step import Stepper
from satbench.training.watch import Held

CPU = torch.device("cpu")


def place_of(path: Path) -> tuple[int, int]:
    place = read_checkpoint(path)["place"]
    return place["epoch"], place["step"]


@pytest.fixture(scope="module")
def whole(
    config: TrainConfig, toy: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """Return the folder of a finished run, and the digest of its weights."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    return folder, digest_weights(train(config, toy, folder, CPU).model)


@pytest.fixture
def copied(whole: tuple[Path, str], tmp_path: Path) -> Path:
    """Return a copy of the folder of a finished run."""
    for path in whole[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def flip(path: Path, offset: int, bit: int = 3) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


# Two generations


def test_the_older_checkpoint_is_from_the_end_of_an_epoch(
    config: TrainConfig,
    toy: Dataset,
    power_cut: type[Exception],
    cut_at: Callable[[int, int], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(epochs, "SAVE_EVERY_SECONDS", -1.0)
    found = []
    for place in ((0, 3), (1, 2), (1, 4)):
        with pytest.raises(power_cut):
            train(config, toy, tmp_path, CPU, on_step=cut_at(*place))
        found.append((place_of(tmp_path / BEFORE), place_of(tmp_path / STATE)))

    # Until the first epoch ends, the older generation is the first saved place.
    assert found == [((0, 1), (0, 2)), ((1, 0), (1, 1)), ((1, 0), (1, 3))]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 0.999])
def test_a_flipped_bit_makes_a_run_continue_from_the_older_generation(
    share: float,
    config: TrainConfig,
    toy: Dataset,
    whole: tuple[Path, str],
    copied: Path,
) -> None:
    path, notes = copied / STATE, []
    flip(path, int(share * path.stat().st_size))
    done = train(config, toy, copied, CPU, on_note=notes.append)

    assert notes == [f"{path} was corrupt: went on from {copied / BEFORE}, the end of epoch 1"]
    assert digest_weights(done.model) == whole[1]
    assert done.notes[0] == notes[0]
    assert place_of(path) == (2, 0)


@pytest.mark.slow
def test_every_flipped_byte_of_a_checkpoint_is_detected(
    whole: tuple[Path, str], tmp_path: Path
) -> None:
    data = (whole[0] / STATE).read_bytes()
    path = tmp_path / STATE
    for offset in [*range(0, len(data), 61), *range(len(data) - 80, len(data))]:
        path.write_bytes(data)
        flip(path, offset, offset % 8)
        with pytest.raises(CorruptError):
            read_checkpoint(path)


def test_a_run_with_two_corrupt_checkpoints_is_refused(
    config: TrainConfig, toy: Dataset, copied: Path
) -> None:
    for name in (STATE, BEFORE):
        flip(copied / name, 1000)
    with pytest.raises(
        SatbenchError, match=r"^the checkpoint .* is corrupt; remove it to train fr"
    ):
        train(config, toy, copied, CPU)


def test_a_run_without_its_newer_checkpoint_continues_from_the_older_one(
    config: TrainConfig, toy: Dataset, whole: tuple[Path, str], copied: Path
) -> None:
    (copied / STATE).unlink()

    assert digest_weights(train(config, toy, copied, CPU).model) == whole[1]


def without_seal(path: Path) -> None:
    """Write a checkpoint as satbench did before there were seals."""
    saved = read_checkpoint(path)
    del saved["sealed"]
    for later in ("checks", "ended", "best", "notes"):
        del saved["place"][later]
    torch.save(saved, path)


def test_a_run_continues_from_a_checkpoint_of_an_older_satbench(
    config: TrainConfig, toy: Dataset, whole: tuple[Path, str], copied: Path
) -> None:
    (copied / BEFORE).rename(copied / STATE)
    without_seal(copied / STATE)
    done = train(config, toy, copied, CPU)

    assert digest_weights(done.model) == whole[1]
    assert [m.epoch for m in done.history] == [1, 2]


def test_a_flipped_bit_in_a_checkpoint_of_an_older_satbench_is_detected(
    config: TrainConfig, toy: Dataset, copied: Path
) -> None:
    (copied / BEFORE).unlink()
    without_seal(copied / STATE)
    saved = torch.load(copied / STATE, weights_only=True)["model"]
    (weights,) = (tensor for tensor in saved.values() if tensor.dim() == 2)
    at = (copied / STATE).read_bytes().index(weights.numpy().tobytes())
    flip(copied / STATE, at + 5)
    with pytest.raises(
        SatbenchError, match=r"^the checkpoint .* is corrupt; remove it to train fr"
    ):
        train(config, toy, copied, CPU)


def test_a_kill_between_the_two_renames_of_a_checkpoint_leaves_no_trace(
    whole: tuple[Path, str], config: TrainConfig, toy: Dataset, copied: Path
) -> None:
    (copied / STATE).replace(copied / BEFORE)  # after the first of two renames
    done = train(config, toy, copied, CPU)

    assert digest_weights(done.model) == whole[1]
    assert not any("checkpoint" in note for note in done.notes)


def test_plain_torch_can_read_a_checkpoint(whole: tuple[Path, str], config: TrainConfig) -> None:
    saved = torch.load(whole[0] / STATE, weights_only=True)
    model = fresh_model(config, 3)
    model.load_state_dict(saved["model"])

    assert digest_weights(model) == whole[1]


# The best weights


@pytest.fixture
def thrice(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Return a config of three epochs, each better than the last; the best is kept."""
    left = iter([0.1, 0.2, 0.3])
    monkeypatch.setattr(epochs, "held_out_accuracies", lambda *_: Held(0.8, next(left), 0.3, 0.1))
    return replace(config, epochs=3, keep="best", batch_size=32)


def test_corrupt_best_weights_are_replaced_by_the_second_best(
    thrice: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    train(thrice, toy, tmp_path, CPU)
    flip(tmp_path / "best.safetensors", -9)
    done = train(thrice, toy, tmp_path, CPU)
    second = fresh_model(thrice, 3)
    load_weights(second, tmp_path / "best.before.safetensors")

    assert done.kept_epoch == 2
    assert done.notes[0] == "the best weights, of epoch 3, were corrupt or missing and are not used"
    assert digest_weights(done.model) == digest_weights(second)


def test_a_kill_between_the_best_weights_and_their_checkpoint_leaves_no_trace(
    thrice: TrainConfig, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(thrice, toy, tmp_path / "whole" / "run", CPU)
    accuracies = iter([0.1, 0.2, 0.3, 0.3])  # the third epoch is measured twice
    monkeypatch.setattr(
        epochs, "held_out_accuracies", lambda *_: Held(0.8, next(accuracies), 0.3, 0.1)
    )
    save = Checkpoints.save

    def killed(self: Checkpoints, place: Checkpoint) -> None:
        if place.epoch == 3:
            raise SystemError("killed")
        save(self, place)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", killed)
        with pytest.raises(SystemError, match="killed"):
            train(thrice, toy, tmp_path / "run", CPU)
    done = train(thrice, toy, tmp_path / "run", CPU)

    assert done.notes == whole.notes
    assert digest_weights(done.model) == digest_weights(whole.model)
    for name in ("best.safetensors", "best.before.safetensors"):
        expected = digest_file(tmp_path / "whole" / "run" / name)
        assert digest_file(tmp_path / "run" / name) == expected
    flip(tmp_path / "run" / "best.safetensors", -9)
    assert train(thrice, toy, tmp_path / "run", CPU).kept_epoch == 2


def test_corrupt_best_and_second_best_weights_are_refused_in_one_sentence(
    thrice: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    train(thrice, toy, tmp_path, CPU)
    for name in ("best.safetensors", "best.before.safetensors"):
        flip(tmp_path / name, -9)
    with pytest.raises(
        SatbenchError, match=r"^the best weights .* are corrupt, and so are the seco"
    ):
        train(thrice, toy, tmp_path, CPU)


def test_corrupt_best_weights_are_reported_if_the_run_keeps_the_last(
    config: TrainConfig, toy: Dataset, whole: tuple[Path, str], copied: Path
) -> None:
    flip(copied / "best.safetensors", -9)
    done = train(config, toy, copied, CPU)

    assert digest_weights(done.model) == whole[1]
    assert "were corrupt or missing" in done.notes[0]


# Values that are not finite


class Poison:
    """Poisons one step of a run, counted from 1."""

    def __init__(self, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.step, self.taken, self._patch = step, 0, monkeypatch

    @property
    def now(self) -> bool:
        return self.taken == self.step

    def loss(self) -> None:
        """Make the loss NaN."""
        forward = Objective.forward

        def poisoned(objective: Objective, *batch: Tensor) -> tuple[Tensor, Tensor]:
            self.taken += 1
            loss, logits = forward(objective, *batch)
            return (loss * torch.nan if self.now else loss), logits

        self._patch.setattr(Objective, "forward", poisoned)

    def after(self, change: Callable[[Stepper], None]) -> None:
        """Change something after the step; loss and accuracy do not change."""
        step = Stepper.__call__

        def poisoned(stepper: Stepper, *given: Any) -> Tensor:
            self.taken += 1
            told = step(stepper, *given)
            if self.now:
                change(stepper)
            return told

        self._patch.setattr(Stepper, "__call__", poisoned)


def diverging(config: TrainConfig, toy: Dataset, folder: Path) -> str:
    with pytest.raises(SatbenchError) as told:
        train(config, toy, folder, CPU)
    return str(told.value)


@pytest.mark.parametrize("save_every", [-1.0, 1e9])
def test_a_non_finite_loss_ends_the_run_and_leaves_the_last_good_checkpoint(
    save_every: float,
    config: TrainConfig,
    toy: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(epochs, "SAVE_EVERY_SECONDS", save_every)
    Poison(4 + 3, monkeypatch).loss()
    said = diverging(config, toy, tmp_path)

    assert said.startswith(
        "the loss was nan at step 3 of epoch 2: training diverged; the last good checkpoint is "
    )
    good = Path(re.findall(r"checkpoint is (\S+) \(the end of epoch 1\)", said)[0])
    assert place_of(good) == (1, 0)
    for path in (tmp_path / STATE, tmp_path / BEFORE):
        if path.exists():
            check_finite(read_checkpoint(path))


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: next(s.network.parameters()).data.fill_(torch.inf), "model."),
        (lambda s: next(s.network.buffers()).fill_(torch.nan), "model."),
        (
            lambda s: next(iter(s.optimiser.state.values()))["momentum_buffer"].fill_(-torch.inf),
            "opt",
        ),
        (lambda s: next(s.average.network.parameters()).data.fill_(torch.nan), "average."),
    ],
    ids=["weights", "running statistics", "momentum", "average"],
)
def test_non_finite_values_are_never_saved(
    change: Callable[[Stepper], None],
    named: str,
    config: TrainConfig,
    toy: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(epochs, "SAVE_EVERY_SECONDS", -1.0)
    Poison(4 + 2, monkeypatch).after(change)
    said = diverging(replace(config, ema_decay=0.9), toy, tmp_path)

    assert f"{named}" in said
    assert "NaN or infinity at step 2 of epoch 2: training diverged; the last good" in said
    assert place_of(tmp_path / STATE) == (1, 1)
    assert place_of(tmp_path / BEFORE) == (1, 0)


def test_non_finite_weights_are_detected_before_the_best_are_saved(
    config: TrainConfig, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Poison(4, monkeypatch).after(lambda s: next(s.network.parameters()).data.fill_(torch.nan))
    said = diverging(config, toy, tmp_path)

    assert "training diverged before anything was saved; lower learning_rate" in said
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "lock"}


def test_non_finite_logits_are_a_divergence(
    config: TrainConfig, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(stepper: Stepper) -> None:
        stepper.network[-1].register_forward_hook(  # type: ignore[index, union-attr, operator]
            lambda layer, x, y: y if layer.training else y * torch.inf
        )

    Poison(4, monkeypatch).after(overflow)

    assert diverging(replace(config, attack=""), toy, tmp_path).startswith(
        "the answer to 8 of 8 held-out images held NaN or infinity at step 4 of epoch 1: training"
    )


@pytest.mark.parametrize("rate", [1e30, 1e4])
def test_a_far_too_high_learning_rate_ends_in_an_error_or_a_warning(
    rate: float, config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    try:
        done = train(replace(config, learning_rate=rate, warm_up=0.0), toy, tmp_path, CPU)
    except SatbenchError as error:
        assert "training diverged" in str(error)  # noqa: PT017
    else:
        check_finite(done.model.state_dict())
        assert "chance level" in done.history[-1].warning


def test_non_finite_tensors_are_found_in_nested_containers() -> None:
    good = {"a": torch.ones(2), "b": {0: torch.tensor([1, 2]), "c": [1, "x"]}}
    check_finite(good)
    with pytest.raises(NotFiniteError, match=r"^b\.d$"):
        check_finite({**good, "b": {"d": torch.tensor(torch.inf)}})


# How to continue


def test_a_run_can_start_from_the_last_good_checkpoint(
    config: TrainConfig, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Poison(4 + 3, patch).loss()
        said = diverging(config, toy, tmp_path / "first")
    good = re.findall(r"--from (\S+) --set learning_rate=0\.01 ", said)[0]
    weights = read_checkpoint(Path(good))["model"]
    begun: list[dict[str, Tensor]] = []

    def remember(self: Stepper, *given: Any) -> None:
        begun.append({k: v.clone() for k, v in self.network.state_dict().items()})
        raise KeyboardInterrupt

    monkeypatch.setattr(Stepper, "__call__", remember)
    onward = replace(config, init=good, learning_rate=0.01)
    with pytest.raises(KeyboardInterrupt):
        train(onward, toy, tmp_path / "next", CPU)

    assert all(torch.equal(begun[0][name], weights[name]) for name in weights)


def hardly_trained(config: TrainConfig, toy: Dataset, folder: Path) -> Trained:
    """Train with a rate so small that the weights do not change."""
    still = replace(config, learning_rate=1e-30, weight_decay=0.0, warm_up=0.0, epochs=1)
    return train(still, toy, folder, CPU)


def alike(model: nn.Module, other: nn.Module) -> bool:
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(one, two, atol=1e-20) for one, two in pairs)


def test_a_run_can_start_from_a_weights_file(
    config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    other = fresh_model(replace(config, seed=7), 3)
    save_weights(other, tmp_path / "w.safetensors")
    torch.save(
        {"state_dict": other.state_dict(), "ema": fresh_model(config, 3).state_dict()},
        tmp_path / "w.pt",
    )
    for number, start in enumerate(("w.safetensors", "w.pt#state_dict")):
        changed = replace(config, init=str(tmp_path / start))
        done = hardly_trained(changed, toy, tmp_path / str(number))

        assert alike(done.model, other)
        assert done.notes[0] == f"starts from the weights {tmp_path / start}"


def test_a_run_can_start_from_a_zoo_model_with_other_classes(
    config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    shipped = replace(config, architecture="tiny(width=8)", init="fmnist-sat-tiny-silu-s0")
    done = hardly_trained(shipped, toy, tmp_path)
    fresh = fresh_model(shipped, 3)

    assert "it has other classes" in done.notes[0]
    assert torch.allclose(done.model[-1].weight, fresh[-1].weight)  # type: ignore[index, union-attr]
    assert not torch.equal(next(done.model.parameters()), next(fresh.parameters()))


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("nothing.pt", r"^expected weights to start from at nothing\.pt, which is missing$"),
        ("fmnist-sat-tiny-relu-s9", r"^unknown model 'fmnist-sat-tiny-relu-s9': did you mean"),
        ("fmnist-sat-small-silu-s0", r"^the weights .* do not fit the model"),
    ],
)
def test_unusable_initial_weights_are_refused(
    start: str, said: str, config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(SatbenchError, match=said):
        train(replace(config, init=start), toy, tmp_path, CPU)


def test_a_corrupt_checkpoint_is_refused_as_initial_weights(
    config: TrainConfig, toy: Dataset, copied: Path, tmp_path: Path
) -> None:
    flip(copied / STATE, 2000)
    with pytest.raises(SatbenchError, match=r"^the checkpoint .* is corrupt \(its SHA-256 is not"):
        train(replace(config, init=str(copied / STATE)), toy, tmp_path / "next", CPU)


def test_a_run_is_resumed_without_the_file_of_its_initial_weights(
    config: TrainConfig,
    toy: Dataset,
    power_cut: type[Exception],
    cut_at: Callable[[int, int], Any],
    tmp_path: Path,
) -> None:
    start = tmp_path / "w.safetensors"
    save_weights(fresh_model(replace(config, seed=7), 3), start)
    changed = replace(config, init=str(start))
    expected = digest_weights(train(changed, toy, tmp_path / "whole", CPU).model)
    with pytest.raises(power_cut):
        train(changed, toy, tmp_path / "cut", CPU, on_step=cut_at(1, 2))
    start.unlink()

    assert digest_weights(train(changed, toy, tmp_path / "cut", CPU).model) == expected
