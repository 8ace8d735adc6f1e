"""RobustBench's entries, with checkpoints in the real format for the real architectures."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn
from torchvision.datasets import CIFAR10

from satbench.cli import cli
from satbench.core import downloads
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.model_zoo.weights import digest_weights
from satbench.models import _loaded, load_model, request_model
from satbench.models._robustbench import RobustBench
from satbench.models._robustbench_shim import import_robustbench, stand_ins

State = dict[str, Tensor]

FAST = "Wong2020Fast"  # a PreAct-ResNet-18 whose normalisation is two buffers
LACKS = ("pkg_resources", "autoattack", "autoattack.state")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of RobustBench's layout, empty."""
    monkeypatch.setenv("SATBENCH_ROBUSTBENCH", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def write(folder: Path) -> Callable[..., nn.Module]:
    """A function that writes the checkpoint of an entry, its weights random."""

    def write(name: str, layout: Callable[[State], Any], entry: str = "") -> nn.Module:
        network = architecture(entry or name)
        path = folder / "cifar10" / "Linf" / f"{name}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(layout(network.state_dict()), path)
        return network

    return write


def architecture(name: str) -> nn.Module:
    """Return a network of RobustBench's own, its weights random."""
    zoo = import_robustbench().model_zoo
    entries = zoo.model_dicts[zoo.enums.BenchmarkDataset.cifar_10][zoo.enums.ThreatModel.Linf]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network: nn.Module = entries[name]["model"]()
    return network.eval()


def load(name: str) -> _loaded.LoadedModel:
    return load_model(request_model(f"robustbench:cifar10/Linf/{name}"), 10)


def write_cifar10(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a CIFAR-10 of 2 test images in the format of the published files."""
    rng = np.random.default_rng(0)
    files: dict[str, dict[str, Any]] = {
        "test_batch": {"data": rng.integers(0, 256, (2, 3072), np.uint8), "labels": [8, 0]},
        "batches.meta": {"label_names": [f"class {i}" for i in range(10)]},
    }
    folder.mkdir(parents=True)
    digests = {}
    for name, things in files.items():
        (folder / name).write_bytes(pickle.dumps(things, protocol=2))
        digests[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", digests["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": digests["batches.meta"]})


# From the command line to the record


@pytest.mark.slow
def test_the_command_evaluates_a_robustbench_checkpoint(
    write: Callable[..., nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = write(FAST, lambda state: {f"module.{k}": v for k, v in state.items()})
    write_cifar10(tmp_path / "cifar-10-batches-py", monkeypatch)
    arguments = ["eval", "--model", f"robustbench:cifar10/Linf/{FAST}", "--dataset", "cifar10"]
    arguments += ["--eps", "8/255", "--attack", "pgd(steps=1)", "--n-examples", "2", "--json"]
    arguments += ["--data-dir", str(tmp_path), "--out", str(tmp_path / "results"), "--quiet"]

    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)

    (summary,) = json.loads(done.stdout)
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "results").glob("*.json"))
    assert (summary["n"], record["dataset"]["name"]) == (2, "cifar10")
    assert record["model"]["source"] == "robustbench"
    assert record["model"]["name"] == f"robustbench:cifar10/Linf/{FAST}"
    assert record["model"]["weights_digest"] == digest_weights(network)


# Loading


@pytest.mark.slow
def test_the_logits_equal_those_of_robustbenchs_own_loader(
    write: Callable[..., nn.Module], folder: Path
) -> None:
    write(FAST, lambda state: state)
    theirs = import_robustbench().utils.load_model(FAST, folder, "cifar10", "Linf")
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = theirs(x), load(FAST).module(x)

    assert torch.equal(got, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layout"),
    [
        (FAST, lambda s: {"state_dict": s, "epoch": 3, "best": np.float64(0.4)}),
        (FAST, lambda s: {k: v for k, v in s.items() if k not in ("mu", "sigma")}),
        ("Andriushchenko2020Understanding", lambda s: {"last": s, "best": {"fc": torch.ones(1)}}),
    ],
    ids=["state_dict", "constants left out", "last and best"],
)
def test_every_layout_of_robustbench_files_is_read(
    name: str, layout: Callable[[State], Any], write: Callable[..., nn.Module]
) -> None:
    network = write(name, layout)

    assert digest_weights(load(name).module) == digest_weights(network)


@pytest.mark.slow
def test_weights_are_refused_if_more_than_constants_is_missing(
    write: Callable[..., nn.Module],
) -> None:
    constants = ("mu", "sigma", "linear.bias")  # RobustBench itself accepts this
    write(FAST, lambda state: {k: v for k, v in state.items() if k not in constants})
    with pytest.raises(
        SatbenchError,
        match=r"does not fit RobustBench's architecture: it lacks 1 weights, such as lin",
    ):
        load(FAST)


@pytest.mark.slow
def test_weights_of_another_architecture_are_refused(write: Callable[..., nn.Module]) -> None:
    write(FAST, lambda state: {**state, "linear.weight": torch.ones(7, 512)})
    with pytest.raises(SatbenchError, match=r"^RobustBench cannot load Wong2020Fast .*linear\.wei"):
        load(FAST)


@pytest.mark.slow
def test_a_checkpoint_that_would_run_code_is_refused_and_does_not_run(
    write: Callable[..., nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    write(FAST, lambda state: {"state_dict": state, "extra": Touch(tmp_path / "ran")})
    with pytest.raises(SatbenchError, match=r"would run .* while it is read"):
        load(FAST)
    assert not (tmp_path / "ran").exists()


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_web_page_saved_as_a_checkpoint_is_recognised(folder: Path) -> None:
    path = folder / "cifar10" / "Linf" / f"{FAST}.pt"
    path.parent.mkdir(parents=True)
    path.write_text("<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title>")
    with pytest.raises(SatbenchError, match=r"Wong2020Fast\.pt is a web page saved under the name"):
        load(FAST)


def test_a_failed_download_says_where_to_put_the_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(gdrive_id: str, path: Path) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(import_robustbench().utils, "download_gdrive_new", refuse)
    with pytest.raises(
        SatbenchError,
        match=rf"^the checkpoint {folder}/cifar10/Linf/Wong2020Fast\.pt is missing and cannot be "
        r"downloaded \(no route to host\): .* https://drive\.google\.com/file/d/1Re--_lf3jCEw9",
    ):
        load(FAST)


@pytest.mark.slow
def test_robustbenchs_own_code_downloads_a_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = architecture(FAST)

    def fetch(gdrive_id: str, path: Path) -> None:
        sys.stdout.write("Downloading")  # as RobustBench does
        assert gdrive_id == "1Re--_lf3jCEw9bnQqGkjw3J7v2tSZKrv"
        torch.save(network.state_dict(), path)

    monkeypatch.setattr(import_robustbench().utils, "download_gdrive_new", fetch)

    assert digest_weights(load(FAST).module) == digest_weights(network)
    # Its output must not mix with results.
    assert capsys.readouterr() == ("", "Downloading")


def test_an_unknown_entry_is_refused_with_the_nearest(folder: Path) -> None:
    with pytest.raises(
        UnknownNameError,
        match=r"^unknown entry of RobustBench's cifar10/Linf 'Wong2020Fats': did you mean",
    ):
        load("Wong2020Fats")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("imagenet/Linf/Standard_R50", "resnet50-0676ba61.pth"),
        ("imagenet/corruptions/AlexNet", "alexnet-owt-7be5be79.pth"),
        (
            "cifar10/Linf/Debenedetti2022Light_XCiT-S12",
            "debenedetti2022light-xcit-s-cifar10-linf.pth.tar",
        ),
    ],
)
def test_a_failed_download_by_timm_or_torch_says_where_to_put_the_weights(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "TRIES", 1)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        SatbenchError,
        match=rf"/{file} cannot be fetched .* put the file at {tmp_path}.*/{file} your",
    ):
        load_model(request_model(f"robustbench:{name}"), 1000)


@pytest.mark.slow
def test_loading_leaves_robustbenchs_code_unchanged(write: Callable[..., nn.Module]) -> None:
    lenient = import_robustbench().utils._safe_load_state_dict
    write(FAST, lambda state: state)
    load(FAST)

    assert import_robustbench().utils._safe_load_state_dict is lenient


def test_an_ensemble_has_a_file_for_each_member(folder: Path) -> None:
    entry = {"gdrive_id": ["one", "two"]}
    source = RobustBench.parse("robustbench:cifar10/Linf/Chen2020Adversarial")
    place = folder / "cifar10" / "Linf"

    assert list(source._checkpoints(folder, entry)) == [
        (place / "Chen2020Adversarial.pt_m0.pt", "one"),
        (place / "Chen2020Adversarial.pt_m1.pt", "two"),
    ]


def test_the_environment_is_restored_after_foreign_code_has_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with _loaded.strangers_code():
        assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ

    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"


# Names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("robustbench:x", r"^expected robustbench:DATASET/THREAT/NAME such as"),
        ("robustbench:cifar10/Linf/", r"^expected robustbench:DATASET/THREAT/NAME such as"),
        ("robustbench:cifar10/Lnf/x", r"^unknown part of RobustBench 'cifar10/Lnf': did you mean"),
    ],
)
def test_a_malformed_name_is_refused(text: str, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        request_model(text)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("cifar10/Linf", ("cifar10", "linf:8/255")),
        ("cifar10/L2", ("cifar10", "l2:0.5")),
        ("cifar100/Linf", ("cifar100", "linf:8/255")),
        ("imagenet/Linf", (None, "linf:4/255")),
        ("cifar10/corruptions", ("cifar10", None)),
    ],
)
def test_a_name_gives_the_data_set_and_threat_model(
    part: str, expected: tuple[str | None, str | None]
) -> None:
    request = request_model(f"robustbench:{part}/Any")

    assert (request.dataset, request.threat) == expected


def test_missing_robustbench_is_refused_with_its_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_loaded, "find_spec", lambda name: None)
    with pytest.raises(
        SatbenchError, match=r"not installed: pip install 'satbench\[robustbench\]'$"
    ):
        request_model(f"robustbench:cifar10/Linf/{FAST}")


# Another package's robustbench

OLD = {
    "robustbench/__init__.py": "from .data import *",
    "robustbench/utils.py": "def load_model(): 0",
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A function that installs a package robustbench before all others, as pip or a copy would."""
    monkeypatch.delitem(sys.modules, "robustbench", raising=False)

    def install(version: str = "", **changes: str) -> Path:
        record = []
        for name, text in OLD.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
            record.append(f"{name},sha256={digest.decode().rstrip('=')},{len(text)}")
            path.write_text(changes.get(path.stem, text))
        if version:
            told = tmp_path / f"robustbench-{version}.dist-info"
            told.mkdir()
            (told / "METADATA").write_text(f"Name: robustbench\nVersion: {version}\n")
            (told / "RECORD").write_text("\n".join(record))
        monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path

    return install


def test_an_old_copy_earlier_on_the_path_is_recognised(site: Callable[..., Path]) -> None:
    folder = site()
    with pytest.raises(
        SatbenchError,
        match=rf"^{folder}/robustbench/__init__\.py is not a file of the installed RobustB",
    ):
        request_model(f"robustbench:cifar10/Linf/{FAST}")


def test_a_copy_in_another_package_is_recognised(
    site: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = site()
    monkeypatch.setattr(sys, "path", [str(folder)])
    with pytest.raises(
        SatbenchError,
        match=r"is not RobustBench 1\.1\.1 but a copy from another package \(torchattacks",
    ):
        request_model(f"robustbench:cifar10/Linf/{FAST}")


def test_a_file_that_another_package_overwrote_is_recognised(site: Callable[..., Path]) -> None:
    folder = site("1.1.1", utils="def load_model(): 1")
    with pytest.raises(SatbenchError, match=rf"^{folder}/robustbench/utils\.py is not a file of"):
        request_model(f"robustbench:cifar10/Linf/{FAST}")


def test_a_file_that_another_package_deleted_is_recognised(site: Callable[..., Path]) -> None:
    folder = site("1.1.1")
    (folder / "robustbench" / "utils.py").unlink()
    with pytest.raises(SatbenchError, match=rf"^{folder}/robustbench/utils\.py is not a file of"):
        request_model(f"robustbench:cifar10/Linf/{FAST}")


def test_another_version_is_refused(site: Callable[..., Path]) -> None:
    site("1.0")
    with pytest.raises(
        SatbenchError, match=r"^expected RobustBench 1\.1\.1, got 1\.0: pip install"
    ):
        request_model(f"robustbench:cifar10/Linf/{FAST}")


def test_the_supported_release_is_accepted(site: Callable[..., Path]) -> None:
    site("1.1.1")

    assert request_model(f"robustbench:cifar10/Linf/{FAST}").kind == "robustbench"


# The shim


def test_the_stand_in_modules_are_removed_after_the_import() -> None:
    assert import_robustbench() is sys.modules["robustbench"]
    left = [sys.modules[name] for name in LACKS if name in sys.modules]
    assert [module.__name__ for module in left if module.__spec__ is None] == []


def test_an_installed_module_is_not_replaced_by_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ModuleType("autoattack")
    monkeypatch.setitem(sys.modules, "autoattack", real)
    with stand_ins():
        assert sys.modules["autoattack"] is real
        assert "autoattack.state" not in sys.modules

    assert sys.modules["autoattack"] is real


def test_the_stand_in_finds_the_files_of_robustbench() -> None:
    loaders = import_robustbench().loaders
    found = loaders.pkg_resources.resource_filename(
        "robustbench.loaders", "helper_files/imagenet_test_image_ids.txt"
    )

    assert len(Path(found).read_text().splitlines()) == 5000


def test_robustbenchs_own_benchmark_says_what_to_run_instead() -> None:
    with pytest.raises(SatbenchError, match=r"benchmark\(\) needs the module autoattack"):
        import_robustbench().eval.AutoAttack(None, norm="Linf", eps=0.1)


@pytest.mark.slow
def test_robustbench_can_be_imported_only_after_the_shim() -> None:
    code = """
try:
    import robustbench
except ModuleNotFoundError as error:
    print(error.name)
from satbench.models._robustbench import RobustBench
from satbench.models._robustbench_shim import import_robustbench
import_robustbench()
import robustbench
print(robustbench.load_model.__module__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["pkg_resources", "robustbench.utils"]
