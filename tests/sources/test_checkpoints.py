"""Weights files in the usual layouts, and files that hold no weights."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.model_zoo.checkpoints import picked, read_pickle, read_state
from satbench.model_zoo.weights import digest_weights, load_weights
from satbench.models import load_model, request_model
from satbench.networks.build import build_network
from satbench.networks.normalize import Normalize

State = dict[str, Tensor]


def network(classes: int = 3, width: int = 2, activation: str = "silu") -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(classes)
        return build_network(f"tiny(width={width})", activation, classes).eval()


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def without_constants(state: State) -> State:
    """Return the state that is saved by code which normalises outside the network."""
    return {k: v for k, v in state.items() if not k.startswith("0.")}


@pytest.fixture
def save(tmp_path: Path) -> Callable[[object], Path]:
    """A function that saves anything as torch.save does."""

    def save(thing: object) -> Path:
        torch.save(thing, tmp_path / "w.pt")
        return tmp_path / "w.pt"

    return save


# Layouts

LAYOUTS: dict[str, Callable[[State], Any]] = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"state": {0: {"m": torch.ones(2)}}}},
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": 0.5},
    "net": lambda state: {"net": state, "acc": np.float64(0.5), "args": argparse.Namespace(lr=1)},
    "nested": lambda state: {"model": {"state_dict": state}, "epoch": torch.tensor(3)},
    "parallel": lambda state: {"state_dict": prefixed("module.", state)},
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "wrapped twice": lambda state: prefixed("module.model.", state),
    "averaged": lambda state: {**prefixed("module.", state), "n_averaged": torch.tensor(9)},
    "parallel and compiled": lambda state: prefixed("module._orig_mod.", state),
    "average of a parallel one": lambda state: {
        "model_ema": {**prefixed("module.module.", state), "n_averaged": torch.tensor(9)}
    },
    "Lightning": lambda state: {
        "state_dict": prefixed("model.", state),
        "hyper_parameters": {"lr": 0.1, "betas": (0.9, 0.999)},
        "callbacks": {"ModelCheckpoint{'monitor': 'acc'}": {"best_model_score": torch.tensor(1.0)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        "pytorch-lightning_version": "2.0.0",
    },
    "DeepSpeed": lambda state: {
        "module": state,
        "buffer_names": [],
        "optimizer": None,
        "lr_scheduler": {"last_epoch": 3},
        "global_steps": 9,
        "mp_world_size": 1,
    },
    "robust_overfitting": lambda state: {
        "state_dict": prefixed("module.", state),
        "opt_state": {"state": {0: {"momentum_buffer": torch.ones(3)}}},
        "test_robust_acc": np.float64(0.5),
    },
    "parameters": lambda state: {
        k: nn.Parameter(v) if v.is_floating_point() else v for k, v in state.items()
    },
    "doubles": lambda state: {
        k: v.double() if v.is_floating_point() else v for k, v in state.items()
    },
    "weights and epoch": lambda state: [state, 3],
    "no constants": without_constants,
    "old batch-norm": lambda state: {
        k: v for k, v in state.items() if "num_batches_tracked" not in k
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_usual_layouts_are_read(layout: str, save: Callable[[object], Path]) -> None:
    trained, fresh = network(), network()
    with torch.no_grad():
        trained[1].weight.add_(1)

    load_weights(fresh, save(LAYOUTS[layout](trained.state_dict())))

    assert digest_weights(fresh) == digest_weights(trained)


def test_the_weights_of_a_network_load_into_a_model_that_wraps_it(
    save: Callable[[object], Path],
) -> None:
    bare = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    layers = {
        "normalize": Normalize((0.5,), (0.5,)),
        "network": nn.Sequential(nn.Flatten(), nn.Linear(4, 2)),
    }
    wrapped = nn.Sequential()
    for name, layer in layers.items():
        wrapped.add_module(name, layer)

    load_weights(wrapped, save(prefixed("module.", bare.state_dict())))

    assert torch.equal(wrapped.network[1].weight, bare[1].weight)


def test_the_old_format_of_torch_is_read(tmp_path: Path) -> None:
    trained, fresh = network(), network(5)
    path = tmp_path / "w.pth.tar"
    torch.save({"state_dict": trained.state_dict()}, path, _use_new_zipfile_serialization=False)

    assert read_state(path).keys() == fresh.state_dict().keys()


def test_constants_in_the_file_are_loaded(save: Callable[[object], Path]) -> None:
    trained, fresh = network(), network()
    with torch.no_grad():
        trained[0].mean.add_(0.1)

    load_weights(fresh, save(trained.state_dict()))

    assert torch.equal(fresh[0].mean, trained[0].mean)


# Several sets


@pytest.fixture
def two_sets(save: Callable[[object], Path]) -> Path:
    """Return a checkpoint with the weights as trained, and as an average: three times as large."""
    state = network().state_dict()
    average = {k: 3 * v for k, v in state.items()}
    return save({"state_dict": state, "state_dict_ema": prefixed("module.", average)})


def test_a_file_with_several_sets_of_weights_is_refused_unless_one_is_named(two_sets: Path) -> None:
    with pytest.raises(
        SatbenchError,
        match=r"holds several sets of weights \(state_dict, state_dict_ema\), and they give "
        r"different results: name one, such as w\.pt#state_dict_ema$",
    ):
        load_weights(network(), two_sets)


@pytest.mark.parametrize(("copy", "times"), [("state_dict", 1), ("state_dict_ema", 3)])
def test_a_named_set_of_weights_is_loaded(copy: str, times: int, two_sets: Path) -> None:
    request = request_model(f"{two_sets}#{copy}", "tiny(width=2)", "silu")
    loaded = load_model(request, 3)

    assert torch.equal(loaded.module[1].weight, times * network()[1].weight)
    assert loaded.info.name == f"w#{copy}"


def test_an_unknown_set_is_refused_with_the_names_of_the_sets(two_sets: Path) -> None:
    with pytest.raises(
        SatbenchError, match=r"has no weights named 'ema'; it has state_dict, state_dict_ema$"
    ):
        read_state(two_sets, "ema")


def test_a_set_name_is_refused_for_a_safetensors_file(tmp_path: Path) -> None:
    save_file(network().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(SatbenchError, match=r"holds one set of weights: leave out #ema$"):
        read_state(tmp_path / "w.safetensors", "ema")


@pytest.mark.parametrize(
    "thing", [{"epoch": 3}, [1, 2], 3, {}, {"optimizer": {"a.b": torch.ones(1)}}]
)
def test_a_checkpoint_without_weights_is_refused(
    thing: object, save: Callable[[object], Path]
) -> None:
    with pytest.raises(SatbenchError, match=r"holds no weights: expected tensors by name"):
        read_state(save(thing))


# Pickles that would run code


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("way", ["torch.save", "pickle.dump"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(way: str, tmp_path: Path) -> None:
    path, ran = tmp_path / "w.pt", tmp_path / "ran"
    malicious = {"state_dict": {"1.weight": torch.ones(1)}, "extra": Touch(ran)}
    if way == "torch.save":
        torch.save(malicious, path)
    else:
        path.write_bytes(pickle.dumps(malicious, protocol=2))

    with pytest.raises(SatbenchError, match=r"would run .* while it is read, so it was not read"):
        load_model(request_model(str(path), "tiny", "relu"), 10)
    assert not ran.exists()


def test_the_pickle_of_these_tests_would_run_if_it_were_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Touch(tmp_path / "ran")))

    assert (tmp_path / "ran").exists()


def test_a_pickled_model_is_refused_with_what_to_do(save: Callable[[object], Path]) -> None:
    with pytest.raises(SatbenchError, match=r"would run torch\.nn.*ask its owner for model\."):
        read_state(save(network()))


def test_the_environment_cannot_switch_the_refusal_off(
    save: Callable[[object], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(SatbenchError, match=r"would run"):
        read_pickle(save(Touch(tmp_path / "ran")))
    assert not (tmp_path / "ran").exists()


# Files that hold no weights


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning", r"is a web page"),
        (b"\n\n<html lang='en'>", r"is a web page"),
        (b"<!-- login --><HTML>", r"is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"run `git lfs pull`"),
        (b"", r"are corrupt"),
        (b"PK\x03\x04 cut short", r"are corrupt"),
        (b"text", r"are corrupt"),
    ],
)
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_file_without_weights_is_refused_with_the_reason(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SatbenchError, match=said):
        read_state(tmp_path / name)


def test_a_truncated_checkpoint_is_reported_as_corrupt(save: Callable[[object], Path]) -> None:
    path = save(network().state_dict())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        SatbenchError, match=r"^the weights .* are corrupt \(.*\); fetch them again$"
    ):
        read_state(path)


def test_an_unknown_format_is_refused_with_the_supported_formats(tmp_path: Path) -> None:
    (tmp_path / "w.h5").touch()
    with pytest.raises(
        SatbenchError, match=r"one of the formats \.safetensors, \.pt, .*, got w\.h5$"
    ):
        read_state(tmp_path / "w.h5")


# Weights that do not fit


def likely(state: State, save: Callable[[object], Path]) -> str:
    with pytest.raises(SatbenchError) as refused:
        load_weights(network(), save(state))
    return str(refused.value).rpartition("; ")[2]


CAUSES: dict[str, tuple[Callable[[State], State], str]] = {
    "classes": (
        lambda state: network(classes=7).state_dict(),
        "likely weights for 7 classes, while the data set has 3: "
        "evaluate on the data set that they were trained on, or give --classes 7",
    ),
    "width": (
        lambda state: network(width=4).state_dict(),
        "likely the same architecture in another size: check --arch and its parameters",
    ),
    "activation": (
        lambda state: {**state, "3.b": torch.ones(1)},
        "likely another activation, with other parameters: check --activation",
    ),
    "larger model": (
        lambda state: {**prefixed("backbone.", state), "head.weight": torch.ones(2, 2)},
        "the model's weights are under the prefix 'backbone', next to others: select them with "
        "--keys backbone",
    ),
    "architecture": (
        lambda state: {"features.weight": torch.ones(3, 3), "classifier.bias": torch.ones(3)},
        "likely another architecture, or names of another library: check --arch",
    ),
    "variant": (
        lambda state: {k: v for k, v in state.items() if k != "1.weight"},
        "likely a variant of the architecture, or other settings of it: check --arch",
    ),
}


@pytest.mark.parametrize("fault", CAUSES)
def test_weights_that_do_not_fit_are_refused_with_the_likely_cause(
    fault: str, save: Callable[[object], Path]
) -> None:
    change, expected = CAUSES[fault]

    assert likely(change(network().state_dict()), save) == expected


def test_the_error_names_the_tensors_that_do_not_fit(save: Callable[[object], Path]) -> None:
    state = network().state_dict()
    del state["1.weight"]
    state["other.weight"] = torch.ones(2, 2)
    with pytest.raises(
        SatbenchError, match=r"\(missing: 1\.weight; not in the model: other\.weight\);"
    ):
        load_weights(network(), save(state))


def test_a_model_is_unchanged_if_the_weights_do_not_fit(save: Callable[[object], Path]) -> None:
    model = network()
    before = digest_weights(model)
    state = {k: v + 1 for k, v in model.state_dict().items() if k != "1.weight"}
    with pytest.raises(SatbenchError, match=r"missing: 1\.weight"):
        load_weights(model, save(state))

    assert digest_weights(model) == before


# Repeated weights, and normalisers next to them

MEAN, STD = torch.tensor([0.4]), torch.tensor([0.2])


def madry(state: State, mean: Tensor = MEAN, std: Tensor = STD) -> State:
    """Return the layout of MadryLab's library: the net twice, and its normaliser twice."""
    held = prefixed("module.model.", state) | prefixed("module.attacker.model.", state)
    for name in ("module.normalizer.", "module.attacker.normalize."):
        held |= {
            f"{name}new_mean": mean.reshape(-1, 1, 1),
            f"{name}new_std": std.reshape(-1, 1, 1),
        }
    return held


NORMALISED: dict[str, Callable[[State], State]] = {
    "MadryLab": lambda state: madry(without_constants(state)),
    "RobustBench": lambda state: {
        **without_constants(state),
        "mu": MEAN.reshape(1, 1, 1, 1),
        "sigma": STD.reshape(1, 1, 1, 1),
    },
    "a layer before it": lambda state: {
        **prefixed("1.", without_constants(state)),
        "0.mean": MEAN,
        "0.std": STD,
    },
    "parallel, a layer before it": lambda state: {
        **prefixed("module.1.", without_constants(state)),
        "module.0.means": MEAN,
        "module.0.sds": STD,
    },
}


@pytest.mark.parametrize("layout", NORMALISED)
def test_a_normaliser_in_the_file_becomes_the_models_normaliser(
    layout: str, save: Callable[[object], Path]
) -> None:
    trained, fresh = network(), network()
    with torch.no_grad():
        trained[1].weight.add_(1)
        trained[0].mean.copy_(MEAN.reshape(-1, 1, 1))
        trained[0].std.copy_(STD.reshape(-1, 1, 1))

    assert load_weights(fresh, save(NORMALISED[layout](trained.state_dict())))
    assert digest_weights(fresh) == digest_weights(trained)


def test_load_weights_returns_whether_the_file_has_the_normalisation(
    save: Callable[[object], Path],
) -> None:
    state = network().state_dict()

    assert load_weights(network(), save(state))
    assert not load_weights(network(), save(without_constants(state)))


def bare_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def test_a_normaliser_is_refused_if_the_model_has_no_layer_for_it(
    save: Callable[[object], Path],
) -> None:
    path = save(madry(bare_net().state_dict()))
    with pytest.raises(
        SatbenchError,
        match=r"the prefix 'module\.model\.', next to the mean .* module\.normalizer\.new_mean",
    ):
        load_weights(bare_net(), path)


@pytest.mark.parametrize("change", ["none", "counter missing", "counter differs"])
def test_equal_copies_of_the_weights_count_as_one(
    change: str, save: Callable[[object], Path]
) -> None:
    trained, fresh = bare_net(), bare_net()
    state = madry(trained.state_dict(), torch.zeros(1), torch.ones(1))
    counter = "module.attacker.model.1.num_batches_tracked"
    if change == "counter missing":
        del state[counter]
    if change == "counter differs":
        state[counter] = torch.tensor(5)
        with pytest.raises(SatbenchError, match=r"they differ: choose one with --keys"):
            load_weights(fresh, save(state))
        return
    load_weights(fresh, save(state))

    assert digest_weights(fresh) == digest_weights(trained)


def test_copies_of_the_weights_that_differ_are_refused(save: Callable[[object], Path]) -> None:
    state = madry(without_constants(network().state_dict()))
    state["module.attacker.model.1.weight"] = state["module.model.1.weight"] + 1
    with pytest.raises(
        SatbenchError,
        match=r"under the prefixes 'module\.model\.' and 'module\.attacker\.model\.', and they dif",
    ):
        load_weights(network(), save(state))


def test_normalisers_that_differ_are_refused(save: Callable[[object], Path]) -> None:
    state = madry(without_constants(network().state_dict()))
    state["module.normalizer.new_mean"] = state["module.normalizer.new_mean"] + 0.1
    with pytest.raises(SatbenchError, match=r"not in the model: .*new_mean"):
        load_weights(network(), save(state))


@pytest.mark.parametrize(
    ("mean", "std"), [(123.675, 58.395), (-0.5, 0.5), (0.5, 0.0), (float("nan"), 0.5)]
)
def test_constants_that_do_not_suit_pixels_in_0_to_1_are_no_normaliser(
    mean: float, std: float, save: Callable[[object], Path]
) -> None:
    state = madry(
        without_constants(network().state_dict()), torch.tensor([mean]), torch.tensor([std])
    )
    with pytest.raises(SatbenchError, match=r"not in the model: .*new_mean"):
        load_weights(network(), save(state))


# Selection of tensors


def test_keys_selects_the_tensors_under_a_prefix_and_drop_removes_others() -> None:
    ones = {name: torch.ones(1) for name in ("a.b.w", "a.bc.w", "a.b.x", "d.w", "d")}

    def names(keys: str = "", drop: tuple[str, ...] = ()) -> set[str]:
        return set(picked(ones, keys, drop, Path("w.pt")))

    assert names() == set(ones)
    assert names("a") == {"b.w", "bc.w", "b.x"}
    assert names("a.b") == names("a.b.") == {"w", "x"}
    assert names(drop=("a.b",)) == {"a.bc.w", "d.w", "d"}
    assert names(drop=("a.b.x", "d")) == {"a.b.w", "a.bc.w"}
    assert names("a", ("a.bc",)) == {"b.w", "b.x"}


@pytest.mark.parametrize(
    ("keys", "drop", "said"),
    [
        (
            "model",
            (),
            r"expected --keys to begin .* got 'model'; names there begin with x\.a, x\.b$",
        ),
        ("x", ("b",), r"expected --drop-keys to begin .* got 'b'; names"),
        ("x", ("x",), r"expected --keys .* got 'x'"),
    ],
)
def test_a_prefix_that_matches_no_tensor_is_refused_with_the_prefixes_in_the_file(
    keys: str, drop: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SatbenchError, match=said):
        picked({"x.a.w": torch.ones(1), "x.b.w": torch.ones(1)}, keys, drop, Path("w.pt"))
