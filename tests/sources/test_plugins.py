"""Names from the entry points of other packages, and broken packages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from satbench.attacks import ATTACKS
from satbench.attacks.registry import attack_spec, parse_attack
from satbench.attacks.suites.suite import parse_suite
from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.core.registry import Entry, Registry
from satbench.data import DATASETS, load_dataset
from satbench.engine.traits import Traits
from satbench.models import MODELS, load_model, request_model
from satbench.networks import ACTIVATIONS
from satbench.networks.build import build_activation

CODE = """
from dataclasses import dataclass
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

def fails():
    raise KeyError("no weights")

@dataclass(frozen=True)
class Nothing:
    steps: int = 3
    def __call__(self, model, x, y, threat, noise):
        return x

@dataclass(frozen=True)
class Misspelt(Nothing):
    use_gradients = False

@dataclass(frozen=True)
class Wrong(Nothing):
    norms = "linf"

@dataclass(frozen=True)
class Empty:
    def parts(self):
        return ()

@dataclass(frozen=True)
class Picky(Nothing):
    def selects(self, history):
        return history.survivors & False

@dataclass(frozen=True)
class ForL2(Nothing):
    norms = ("l2",)
    uses_gradients = False
    block = 4

@dataclass(frozen=True)
class Tanh:
    def __call__(self):
        return nn.Tanh()

def no_dataclass():
    pass

def images(folder, split, n_examples):
    import numpy as np
    from satbench.data import Dataset
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 1, 28, 28)).astype(np.uint8)
    return Dataset("any name", split, pixels, np.arange(30) % 10, 10)

def changed(**changes):
    from dataclasses import replace
    return lambda *asked: replace(images(*asked), **changes)

def arrays(folder, split, n_examples):
    found = images(folder, split, n_examples)
    return found.images, found.labels

def breaks(folder, split, n_examples):
    raise OSError(f"no disk at {folder}")

other_split = changed(split="val")
more_labels = changed(classes=9)

def flat(*asked):
    from dataclasses import replace
    found = images(*asked)
    return replace(found, images=found.images.reshape(30, 784))

def doubles(*asked):
    from dataclasses import replace
    found = images(*asked)
    return replace(found, images=found.images / 255)
"""

Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """A function that installs a package `strange-zoo` with these entry points."""
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (
        MODELS,
        ATTACKS,
        ACTIVATIONS,
        DATASETS,
    ):  # they must forget the plug-ins that they found before
        monkeypatch.setattr(registry, "__dict__", dict(registry.__dict__))
        registry.__dict__.pop("_plugins", None)

    def install(entry_points: str) -> None:
        (tmp_path / "strange_zoo.py").write_text(CODE)
        (tmp_path / "broken_zoo.py").write_text("import no_such_module\n")
        folder = tmp_path / "strange_zoo-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-zoo\nVersion: 1\n")
        (folder / "entry_points.txt").write_text(entry_points)

    yield install
    for name in ("strange_zoo", "broken_zoo"):
        sys.modules.pop(name, None)


def test_a_plugins_model_is_loaded_by_its_name(install: Install) -> None:
    install("[satbench.models]\nstrange-net = strange_zoo:net\n")
    loaded = load_model(request_model("strange-net"), 10)

    assert (loaded.info.name, loaded.info.source) == ("strange-net", "plug-in strange-zoo")
    assert loaded.info.architecture == "strange_zoo:net"
    assert loaded.info.parameters == 7850
    assert not loaded.module.training


def test_a_plugins_attack_has_a_name_and_a_spec(install: Install) -> None:
    install("[satbench.attacks]\nnothing = strange_zoo:Nothing\n")

    assert attack_spec("nothing") == "nothing(steps=3)"
    assert ATTACKS.names()[-1] == "nothing"


def test_a_plugins_attack_takes_its_traits_from_its_class(install: Install) -> None:
    install("[satbench.attacks]\nfor-l2 = strange_zoo:ForL2\n")
    (stage,) = parse_suite(["for-l2"])

    assert stage.traits == Traits(("l2",), uses_gradients=False, block=4)


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        ("Misspelt", "odd: unknown trait 'use_gradients': did you mean 'uses_gradients'?"),
        ("Wrong", "odd: expected the trait norms as a tuple of linf, l2, l1"),
        ("Empty", "odd: expected parts() to return one pair (name, attack) or more, got ()"),
        ("Picky", "expected attacks on the images, got odd(steps=3), which selected none of"),
        ("ForL2", "expected l2 for odd, got linf; take another attack"),
    ],
)
def test_a_plugins_attack_that_would_attack_nothing_gives_no_record(
    attack: str, said: str, install: Install, tmp_path: Path
) -> None:
    install(f"[satbench.attacks]\nodd = strange_zoo:{attack}\n")
    words = ["eval", "--model", "fmnist-sat-tiny-relu-s0", "--attack", "odd", "--n-examples", "8"]
    done = CliRunner().invoke(cli, [*words, "--quiet", "--out", str(tmp_path / "out")])

    assert isinstance(done.exception, SatbenchError)
    assert str(done.exception).startswith(said)
    assert not list((tmp_path / "out").glob("*.json"))


def test_a_plugins_wrong_attack_does_not_hide_other_attacks(install: Install) -> None:
    install("[satbench.attacks]\nodd = strange_zoo:Misspelt\nnothing = strange_zoo:Nothing\n")
    done = CliRunner().invoke(cli, ["attacks", "--json"])

    assert done.exit_code == 0
    assert '"nothing"' in done.stdout
    assert '"odd"' not in done.stdout
    assert "did you mean 'uses_gradients'?" in done.stderr


def test_a_plugins_activation_is_built(install: Install) -> None:
    install("[satbench.activations]\ntanh = strange_zoo:Tanh\n")

    assert isinstance(build_activation("tanh")(), torch.nn.Tanh)


def test_a_plugin_is_not_imported_before_it_is_used(install: Install) -> None:
    install("[satbench.models]\nstrange-net = strange_zoo:net\n")
    request_model("strange-net")

    assert "strange_zoo" not in sys.modules


def test_a_broken_plugin_is_named_when_it_is_used(install: Install) -> None:
    install("[satbench.models]\nbroken-net = broken_zoo:net\n")
    with pytest.raises(
        SatbenchError,
        match=r"^'broken-net' comes from the plug-in strange-zoo, which is broken "
        r"\(ModuleNotFoundError: No module named 'no_such_module'\): update strange-zoo or",
    ):
        load_model(request_model("broken-net"), 10)


def test_a_broken_plugin_does_not_affect_other_names(install: Install) -> None:
    install("[satbench.attacks]\nbroken = broken_zoo:Attack\nnothing = strange_zoo:Nothing\n")
    done = CliRunner().invoke(cli, ["attacks", "--json"])

    assert done.exit_code == 0
    assert '"nothing"' in done.stdout
    assert '"broken"' not in done.stdout
    assert done.stderr.startswith("satbench: 'broken' comes from the plug-in strange-zoo, which is")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (
            "pgd = strange_zoo:Nothing",
            "the attack 'pgd' of the plug-in strange-zoo is left out: "
            "satbench has one of that name",
        ),
        (
            "odd = strange_zoo",
            "the attack 'odd' of the plug-in strange-zoo is left out: "
            "expected package.module:attribute, got 'strange_zoo'",
        ),
    ],
)
def test_a_plugin_that_cannot_be_registered_is_reported(
    line: str, fault: str, install: Install
) -> None:
    install(f"[satbench.attacks]\n{line}\n")

    assert ATTACKS.faults == [fault]
    assert ATTACKS["pgd"].target == "satbench.attacks.gradient.pgd:PGD"


def test_a_failing_factory_of_a_plugin_is_reported(install: Install) -> None:
    install("[satbench.models]\nfailing = strange_zoo:fails\n")
    with pytest.raises(SatbenchError, match=r"^strange_zoo:fails\(\) failed: KeyError"):
        load_model(request_model("failing"), 10)


def test_a_plugins_attack_that_is_not_a_dataclass_is_refused(install: Install) -> None:
    install("[satbench.attacks]\nodd = strange_zoo:no_dataclass\n")
    with pytest.raises(SatbenchError, match=r"^odd: expected a frozen dataclass behind the name"):
        parse_attack("odd")


def test_an_entry_that_is_registered_later_replaces_that_of_a_plugin(install: Install) -> None:
    install("[satbench.shapes]\nline = strange_zoo:Nothing\n")
    shapes = Registry("shape")
    assert shapes["line"].plugin == "strange-zoo"
    own = Entry("line", "fractions:Fraction", "a line")
    shapes.add(own)

    assert list(shapes) == [own]


def test_names_are_checked_without_importing_torch() -> None:
    code = """
import os, sys
os.environ["SATBENCH_TRUST"] = "owner/repo"
from satbench.core.errors import SatbenchError
from satbench.models import request_model
for text in ("none", "robustbench:cifar10/Linf/Carmon2019Unlabeled", "robustbench:x",
             "torchvision:resnet50@IMAGENET1K_V2", "timm:resnet18", "hf:org/repo", "hf:org",
             "torchhub:owner/repo@v1:net", "torchhub:other/repo@v1:net", "w.pt", "a.b:c"):
    try:
        request_model(text)
    except SatbenchError:
        pass
print([name for name in ("torch", "timm", "huggingface_hub") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


# Data sets


def test_a_plugins_data_set_is_evaluated_by_its_name(install: Install, tmp_path: Path) -> None:
    install("[satbench.datasets]\nmy-set = strange_zoo:images\n")
    words = ["--model", "fmnist-sat-tiny-relu-s0", "--dataset", "my-set", "--attack", "pgd-1"]
    done = CliRunner().invoke(
        cli, ["eval", *words, "--n-examples", "9", "--json", "--quiet", "--out", str(tmp_path)]
    )

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["dataset"] == "my-set"
    assert load_dataset("my-set@20").shape == (1, 20, 20)
    assert load_dataset("my-set", "train", 4).name == "my-set"
    assert "my-set" in CliRunner().invoke(cli, ["datasets"]).stdout


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("arrays", "got tuple"),
        ("breaks", "could not load my-set (OSError: no disk at "),
        ("no_dataclass", "could not load my-set (TypeError: "),
        ("other_split", "got the split val"),
        ("more_labels", "got labels 0…9 for 9 classes"),
        ("flat", "got images of shape (30, 784) in uint8"),
        ("doubles", "got images of shape (30, 1, 28, 28) in float64"),
    ],
)
def test_a_plugins_invalid_data_set_is_refused(function: str, said: str, install: Install) -> None:
    install(f"[satbench.datasets]\nmy-set = strange_zoo:{function}\n")
    with pytest.raises(SatbenchError, match=r"strange-zoo") as refused:
        load_dataset("my-set")

    assert said in str(refused.value)


def test_a_plugins_data_set_cannot_take_a_name_of_satbench(install: Install) -> None:
    install("[satbench.datasets]\ncifar10 = strange_zoo:images\n")
    told = CliRunner().invoke(cli, ["datasets"])

    assert "the dataset 'cifar10' of the plug-in strange-zoo is left out" in told.stderr
    assert not DATASETS["cifar10"].plugin
