"""A user's text, such as a name or a path, becomes a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.data import Dataset
from satbench.model_zoo.card import read_card, weights_path, write_card, zoo_card
from satbench.model_zoo.weights import digest_weights, load_weights, save_weights
from satbench.models import LoadedModel, load_model, request_model
from satbench.networks.build import build_network

SHIPPED = "fmnist-sat-tiny-relu-s0"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a weights file of a tiny net of width 2 with SiLU and 3 classes."""
    with torch.random.fork_rng():
        model = build_network("tiny(width=2)", "silu", 3)
    save_weights(model, tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """Return the path of a copy of a shipped card, with its weights next to it."""
    shipped = zoo_card(SHIPPED)
    write_card(shipped, tmp_path / "copy.json")
    (tmp_path / shipped.weights).write_bytes(weights_path(shipped).read_bytes())
    return tmp_path / "copy.json"


# By name and by card


def test_a_shipped_model_is_in_eval_mode_on_the_cpu(shipped: LoadedModel) -> None:
    assert not any(module.training for module in shipped.module.modules())
    assert {p.device.type for p in shipped.module.parameters()} == {"cpu"}


def test_a_record_describes_a_shipped_model_by_its_card(shipped: LoadedModel) -> None:
    told = zoo_card(SHIPPED)

    assert shipped.card == told
    assert shipped.info.weights_digest == told.weights_digest
    assert (shipped.info.name, shipped.info.source) == (SHIPPED, "zoo")
    assert told.training is not None
    assert shipped.info.training["data_digest"] == told.training.data_digest


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        UnknownNameError,
        match=rf"^unknown model 'fmnist-sat-tiny-rleu-s0': did you mean '{SHIPPED}'",
    ):
        request_model("fmnist-sat-tiny-rleu-s0")


def test_a_card_loads_the_weights_next_to_it(card: Path, shipped: LoadedModel) -> None:
    loaded = load_model(request_model(str(card)), 10)

    assert loaded.info == replace(shipped.info, source="file")


def test_a_missing_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"^expected a card at .*none\.json, which is missing$"):
        request_model(str(tmp_path / "none.json"))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 2}', '{"schema": 1, "a": 2}'])
def test_a_file_that_is_not_a_card_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text(text)
    with pytest.raises(SatbenchError, match=r"card.*card\.json"):
        read_card(path)


def test_a_card_whose_weights_are_missing_is_refused(card: Path) -> None:
    (card.parent / zoo_card(SHIPPED).weights).unlink()
    with pytest.raises(SatbenchError, match=r"^expected weights at .*, which is missing$"):
        load_model(request_model(str(card)), 10)


def test_weights_that_do_not_match_the_card_are_refused(card: Path, shipped: LoadedModel) -> None:
    with torch.no_grad():
        next(shipped.module.parameters())[0, 0, 0, 0] += 1e-6
    save_weights(shipped.module, card.parent / zoo_card(SHIPPED).weights)
    with pytest.raises(
        SatbenchError,
        match=r"^expected weights with digest [0-9a-f]{12}… in .*, got [0-9a-f]{12}…;",
    ):
        load_model(request_model(str(card)), 10)


# By weights file


def test_weights_load_with_an_architecture_and_an_activation(file: Path) -> None:
    loaded = load_model(request_model(str(file), "tiny(width=2)", "silu"), 3)

    assert (loaded.info.name, loaded.info.source) == ("mine", "file")
    assert (loaded.info.architecture, loaded.info.activation) == ("tiny(width=2)", "silu")
    assert loaded.info.weights_digest == digest_weights(loaded.module)
    assert not loaded.module.training


def test_architecture_and_activation_are_spelled_out_in_the_record(file: Path) -> None:
    save_weights(build_network("tiny", "gelu", 10), file)
    loaded = load_model(request_model(str(file), "tiny", "gelu"), 10)

    assert loaded.info.architecture == "tiny(width=8)"
    assert loaded.info.activation == "gelu(approximate=tanh)"


@pytest.mark.parametrize(
    ("architecture", "activation"), [(None, None), ("tiny", None), (None, "silu")]
)
def test_weights_without_architecture_and_activation_are_refused(
    architecture: str | None, activation: str | None, file: Path
) -> None:
    with pytest.raises(SatbenchError, match=r"give --arch and --activation with"):
        request_model(str(file), architecture, activation)


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"^expected weights at .*none\.safetensors, which is"):
        request_model(str(tmp_path / "none.safetensors"), "tiny", "relu")


@pytest.mark.parametrize(
    "corrupt",
    [lambda data: b"", lambda data: b"text", lambda data: data[:-10]],
    ids=["empty", "text", "short"],
)
def test_corrupt_weights_are_refused(corrupt: Callable[[bytes], bytes], file: Path) -> None:
    file.write_bytes(corrupt(file.read_bytes()))
    with pytest.raises(
        SatbenchError, match=r"^the weights .* are corrupt \(.*\); fetch them again"
    ):
        load_model(request_model(str(file), "tiny(width=2)", "silu"), 3)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    suffix: str, tmp_path: Path
) -> None:
    path, ran = tmp_path / f"w{suffix}", tmp_path / "ran"
    path.write_bytes(f"cos\nsystem\n(S'touch {ran}'\ntR.".encode())
    with pytest.raises(SatbenchError, match=r"would run os\.system while it is read, so it was"):
        load_model(request_model(str(path), "tiny", "relu"), 10)
    assert not ran.exists()


def test_a_checkpoint_loads_the_same_weights_as_a_safetensors_file(
    file: Path, tmp_path: Path
) -> None:
    state = {f"module.{name}": tensor for name, tensor in load_file(file).items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "mine.pt")
    request = request_model(str(tmp_path / "mine.pt"), "tiny(width=2)", "silu")

    assert load_model(request, 3).info == (
        load_model(request_model(str(file), "tiny(width=2)", "silu"), 3).info
    )


@pytest.mark.parametrize(
    ("architecture", "classes", "said"),
    [
        ("tiny(width=3)", 3, r"of another shape: 1\.weight \(2, 1, 5, 5\) for \(3, 1, 5, 5\)"),
        ("tiny(width=2)", 4, r"of another shape: 15\.bias \(3,\) for \(4,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_tensors(
    architecture: str, classes: int, said: str, file: Path
) -> None:
    with pytest.raises(SatbenchError, match=said):
        load_model(request_model(str(file), architecture, "silu"), classes)


def test_weights_with_other_tensor_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"fc.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(SatbenchError, match=r"missing: .*; not in the model: fc\.weight\)"):
        load_weights(nn.Linear(2, 2), path)


@pytest.mark.parametrize(
    ("architecture", "activation", "said"),
    [
        ("tinny", "relu", r"^unknown architecture 'tinny': did you mean 'tiny'\?$"),
        ("tiny", "sulu", r"^unknown activation 'sulu': did you mean 'silu'\?$"),
        ("tiny(widht=2)", "relu", r"^unknown parameter of tiny 'widht': did you mean 'width'\?$"),
        ("tiny(width=0)", "relu", r"^tiny: expected a width of 1 or more, got 0$"),
        ("tiny", "parametric-softplus(alpha=0)", r"^parametric-softplus: expected alpha above 0"),
        ("tiny", "gelu(approximate=yes)", r"^gelu\(approximate=…\): expected one of tanh, none"),
    ],
)
def test_an_unknown_architecture_or_activation_is_refused_with_the_nearest(
    architecture: str, activation: str, said: str, file: Path
) -> None:
    with pytest.raises(SatbenchError, match=said):
        load_model(request_model(str(file), architecture, activation), 3)


# By factory

FACTORIES = """
from torch import nn

def good():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

def fails():
    raise KeyError("weights")

def returns_a_word():
    return "model"

def lazy():
    return nn.LazyLinear(10)

a_word = "model"
"""


@pytest.fixture
def _factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_factories.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("_factories")
def test_a_factory_builds_the_model() -> None:
    loaded = load_model(request_model("my_factories:good"), 10)

    assert (loaded.info.name, loaded.info.source) == ("my_factories:good", "factory")
    assert loaded.info.parameters == 7850
    assert loaded.card is None


@pytest.mark.usefixtures("_factories")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails", r"^my_factories:fails\(\) failed: KeyError: 'weights'$"),
        ("returns_a_word", r"^expected my_factories:.* to return a torch\.nn\.Module, got str$"),
        ("lazy", r"^expected a model with weights, got weight without a shape \(a lazy layer\): "),
        ("a_word", r"^expected my_factories:a_word to be a function that returns a model$"),
        ("none", r"^expected --model PACKAGE\.MODULE:FACTORY, got 'my_factories:none': module"),
    ],
)
def test_a_factory_that_returns_no_model_is_refused(name: str, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        load_model(request_model(f"my_factories:{name}"), 10)


def test_a_factory_in_a_missing_module_is_refused() -> None:
    with pytest.raises(SatbenchError, match=r"got 'no_such_package\.module:f': No module named"):
        load_model(request_model("no_such_package.module:f"), 10)


@pytest.mark.parametrize("text", ["", ":", "a:", ":b", "folder/module:f"])
def test_a_text_that_is_no_name_file_or_factory_is_an_unknown_model(text: str) -> None:
    with pytest.raises(UnknownNameError, match=r"^unknown model"):
        request_model(text)


# Digests


def test_the_digest_of_weights_depends_on_every_tensor(shipped: LoadedModel) -> None:
    before = digest_weights(shipped.module)
    digests = set()
    with torch.no_grad():
        for tensor in shipped.module.state_dict().values():
            tensor.view(-1)[0] += 1
            digests.add(digest_weights(shipped.module))
            tensor.view(-1)[0] -= 1

    assert before not in digests
    assert len(digests) == len(shipped.module.state_dict())


def test_the_digest_of_weights_does_not_depend_on_the_memory_layout(shipped: LoadedModel) -> None:
    before = digest_weights(shipped.module)

    assert digest_weights(shipped.module.to(memory_format=torch.channels_last)) == before


def test_a_card_and_a_name_give_a_model_with_the_same_logits(
    card: Path, shipped: LoadedModel, fashion: Dataset
) -> None:
    x = torch.from_numpy(fashion.pixels(np.arange(4)))

    assert torch.equal(load_model(request_model(str(card)), 10).module(x), shipped.module(x))
