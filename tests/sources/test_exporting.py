"""Exports load without satbench and give the logits of the model."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from hub_server import HubServer
from safetensors import safe_open
from safetensors.torch import load_file

import satbench
from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.model_zoo.card import CARD_KEY, Card
from satbench.model_zoo.timm_names import timm_model_name, timm_state
from satbench.models import LoadedModel, describe_module, exporting, load_model, request_model
from satbench.models.exporting import FORMS, export_model, push_to_hub
from satbench.networks import ACTIVATIONS
from satbench.networks.build import build_network, canonical_architecture

SHIPPED = "fmnist-sat-tiny-silu-s0"


def loaded(architecture: str, activation: str, shape: tuple[int, int, int]) -> LoadedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build_network(architecture, activation, 7).eval()
        for buffer in module.buffers():
            if buffer.is_floating_point() and buffer.dim() == 1:
                buffer.uniform_(0.5, 1.5)  # statistics that reveal a wrong name
    card = Card(
        "made", canonical_architecture(architecture), activation, 1, shape, 7, "w", "", "MIT", None
    )
    return LoadedModel(module, describe_module(module, "made", "card"), card)


def imported(name: str) -> Any:
    """Import a package that warns of torch's deprecations; skip the test if it is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


@pytest.mark.slow
def test_a_torch_export_loads_without_satbench(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["export", SHIPPED, "--out", str(tmp_path), "--json"])
    told = json.loads(done.stdout)
    x = torch.rand(3, 1, 28, 28)
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys; sys.modules['satbench'] = None\n"
        "import torch; images = torch.load('x.pt')\n"
        f"{told['load_with']}\ntorch.save(logits, 'logits.pt')"
    )
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=True)

    model = load_model(request_model(SHIPPED), 10).module
    with torch.no_grad():
        expected = model(x)
    assert torch.allclose(expected, torch.load(tmp_path / "logits.pt"), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch-export", "torchscript", "onnx"])
@pytest.mark.parametrize("activation", ACTIVATIONS.names())
def test_every_activation_is_exported_in_every_form(
    form: str, activation: str, tmp_path: Path
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxscript")
    # `export_model` compares the logits itself, and raises where they differ.
    exported = export_model(loaded("tiny(width=2)", activation, (1, 28, 28)), form, tmp_path)

    assert [True] == [path.is_file() for path in exported.files]


def test_an_export_with_different_logits_is_refused_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "AGREE", -1.0)

    with pytest.raises(SatbenchError, match="differ from the model's"):
        export_model(loaded("tiny(width=1)", "relu", (1, 28, 28)), "torchscript", tmp_path)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.sampled(1)
@pytest.mark.parametrize("form", ["torch-export", "torchscript", "hub"])
def test_a_full_disk_raises_an_error_and_does_not_kill_the_process(
    form: str, tmp_path: Path
) -> None:
    model = loaded("tiny(width=1)", "relu", (1, 28, 28))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            export_model(model, form, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert [] == list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_hub_folder_holds_weights_with_the_card_a_config_and_a_model_card(tmp_path: Path) -> None:
    model = load_model(request_model(SHIPPED), 10)
    export_model(model, "hub", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        metadata = file.metadata()

    assert (model.card.activation, 10) == (config["satbench"]["activation"], config["num_classes"])
    assert model.card.architecture == json.loads(metadata[CARD_KEY])["architecture"]
    assert (tmp_path / "README.md").read_text().startswith("---\nlicense: mit\n")


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("architecture", "activation"),
    [("efficientnet(variant=b0)", "silu"), ("resnet(depth=18)", "relu")],
)
def test_weights_under_timms_names_give_the_same_logits_in_timm(
    architecture: str, activation: str
) -> None:
    timm = imported("timm")
    model = loaded(architecture, activation, (3, 64, 64))
    name = timm_model_name(model.card.architecture, activation)
    theirs = timm.create_model(name, num_classes=7).eval()
    theirs.load_state_dict(timm_state(model.card.architecture, model.module.state_dict()))
    x = torch.rand(2, 3, 64, 64)

    with torch.no_grad():
        expected, got = model.module(x), theirs(2 * x - 1)
    assert torch.allclose(expected, got, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("architecture", "activation", "expected"),
    [
        ("efficientnet(variant=b4,statistics=sat)", "silu", "efficientnet_b4"),
        ("efficientnet(variant=b6,statistics=sat)", "silu", ""),
        ("efficientnet(variant=b0,statistics=sat)", "relu", ""),
        ("tiny(width=8)", "relu", ""),
    ],
)
def test_only_models_that_timm_has_get_a_timm_name(
    architecture: str, activation: str, expected: str
) -> None:
    assert expected == timm_model_name(architecture, activation)


@pytest.mark.slow
def test_timm_loads_the_weights_of_a_hub_folder(tmp_path: Path) -> None:
    timm = imported("timm")
    model = loaded("efficientnet(variant=b0)", "silu", (3, 64, 64))
    export_model(model, "hub", tmp_path)
    name = json.loads((tmp_path / "config.json").read_text())["architecture"]
    theirs = timm.create_model(name, num_classes=7).eval()
    theirs.load_state_dict(load_file(tmp_path / "model.safetensors"))

    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected, got = model.module(x), theirs(2 * x - 1)
    assert torch.allclose(expected, got, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_push_creates_the_repository_and_uploads_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    calls: list[tuple[str, object]] = []

    class Api:
        endpoint = "https://huggingface.co"

        def create_repo(self, name: str, exist_ok: bool) -> None:
            calls.append(("create", name))

        def upload_folder(self, repo_id: str, folder_path: str) -> None:
            calls.append((repo_id, folder_path))

    monkeypatch.setattr(hub, "HfApi", Api)

    assert "https://huggingface.co/me/net" == push_to_hub(tmp_path, "me/net")
    assert [("create", "me/net"), ("me/net", str(tmp_path))] == calls


LOADS = """
import sys
import torch
from huggingface_hub import hf_hub_download
model = torch.export.load(hf_hub_download("me/net", "{name}.pt2")).module()
images = torch.load(sys.argv[1])
with torch.no_grad():
    torch.save(model(images), sys.argv[2])
assert "satbench" not in sys.modules
"""


@pytest.mark.slow
def test_a_model_pushed_to_a_hub_is_loaded_from_there_without_satbench(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    push = ["export", SHIPPED, "--form", "hub", "--push", "me/net", "--out"]
    with HubServer(token="hf_right") as hub:

        def run(*words: str, token: str = "hf_right") -> subprocess.CompletedProcess[str]:
            hub_only = {"HF_ENDPOINT": hub.address, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
            env = {**os.environ, **hub_only, "HF_HOME": str(tmp_path / "home")}
            return subprocess.run(words, env=env, capture_output=True, text=True)

        python = (sys.executable, "-m", "satbench")
        refused = run(*python, *push, str(tmp_path / "a"), token="hf_wrong")
        assert (2, {}) == (refused.returncode, hub.repositories)
        assert "Traceback" not in refused.stderr

        pushed = run(*python, *push, str(tmp_path / "b"))
        assert 0 == pushed.returncode, pushed.stderr
        assert f"{hub.address}/me/net" in pushed.stdout
        written = {one.name: one.read_bytes() for one in (tmp_path / "b").iterdir()}
        assert written == hub.repositories["me/net"]

        x = torch.rand(3, 1, 28, 28)
        torch.save(x, tmp_path / "x.pt")
        files = (str(tmp_path / "x.pt"), str(tmp_path / "logits.pt"))
        done = run(sys.executable, "-c", LOADS.format(name=SHIPPED), *files)
        assert 0 == done.returncode, done.stderr
    with torch.no_grad():
        expected = satbench.load_model(SHIPPED)(x)
    torch.testing.assert_close(expected, torch.load(tmp_path / "logits.pt"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export", "no-such-model"], "unknown model"),
        (["export", SHIPPED, "--push", "me/net"], "--push needs --form hub"),
    ],
)
def test_a_wrong_command_is_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, words)

    assert said in str(done.exception)
    assert [] == list(tmp_path.iterdir())


def test_the_command_offers_all_forms_of_export() -> None:
    (option,) = [one for one in cli.get_command(None, "export").params if one.name == "form"]

    assert sorted(FORMS) == sorted(option.type.choices)
