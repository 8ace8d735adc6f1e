"""torchvision, timm, the Hugging Face Hub and torch.hub, each with files in its real format."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from serving import Server
from torch import Tensor, nn

from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.model_zoo.card import Card, write_card
from satbench.model_zoo.weights import digest_weights, save_weights
from satbench.models import LoadedModel, _loaded, load_model, request_model
from satbench.networks.build import build_network

IMAGENET = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def load(text: str) -> LoadedModel:
    return load_model(request_model(text), 1000)


def pixels(size: int = 64) -> Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def answers(network: nn.Module, x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the logits of a network for images that are normalised outside it."""
    with torch.no_grad():
        logits: Tensor = network.eval()((x - mean.view(-1, 1, 1)) / std.view(-1, 1, 1))
    return logits


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


# torchvision


SQUEEZE = "torchvision:squeezenet1_1@IMAGENET1K_V1"


@pytest.fixture
def squeezenet(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[nn.Module]:
    """A SqueezeNet with weights at torchvision's address, under torchvision's file name."""
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    network = seeded(squeezenet1_1)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    data = (tmp_path / "w.pth").read_bytes()
    name = f"squeezenet1_1-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    server.files[name] = data
    monkeypatch.setattr(SqueezeNet1_1_Weights.IMAGENET1K_V1.value, "url", server.url(name))
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    yield network
    torch.hub.set_dir(before)


def test_a_torchvision_model_is_downloaded_and_takes_pixels(
    squeezenet: nn.Module, server: Server
) -> None:
    loaded = load(SQUEEZE)
    x = pixels()
    with torch.no_grad():
        got = loaded.module(x)

    torch.testing.assert_close(got, answers(squeezenet, x, *IMAGENET), rtol=0, atol=1e-6)
    assert (loaded.info.name, loaded.info.source) == (SQUEEZE, "torchvision")
    assert loaded.info.architecture == "torchvision:squeezenet1_1"
    assert not loaded.module.training


def test_a_torchvision_model_is_downloaded_once(squeezenet: nn.Module, server: Server) -> None:
    assert load(SQUEEZE).info == load(SQUEEZE).info
    assert server.asked == [""]


def test_a_changed_file_in_torchs_cache_is_refused(squeezenet: nn.Module, tmp_path: Path) -> None:
    load(SQUEEZE)
    (file,) = (tmp_path / "hub" / "checkpoints").glob("*.pth")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(
        SatbenchError, match=r"^expected a file whose SHA-256 begins with [0-9a-f]{8}"
    ):
        load(SQUEEZE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "torchvision:resnet50",
            r"^torchvision has weights only by name for resnet50: "
            r"torchvision:resnet50@IMAGENET1K_V1 or torchvision:resnet50@IMAGENET1K_V2$",
        ),
        (
            "torchvision:resnet50@V9",
            r"^torchvision has no weights 'V9' for resnet50: torchvision:resnet50@IMAGENET1K_V1 or",
        ),
        (
            "torchvision:resnet5",
            r"^unknown torchvision model 'resnet5': did you mean 'resnet50'\?$",
        ),
        (
            "torchvision:fcn_resnet50@COCO_WITH_VOC_LABELS_V1",
            r"^expected a classifier of images, got torchvision's fcn_resnet50$",
        ),
    ],
)
def test_an_unknown_torchvision_name_is_refused_with_names_that_exist(text: str, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        load(text)


# The Hugging Face Hub, and timm, whose weights are there


WriteRepo = Callable[[str, dict[str, bytes]], None]


@pytest.fixture
def write_repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteRepo:
    """A function that writes a repository into the hub's cache, as a download leaves it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def write(repo: str, files: dict[str, bytes]) -> None:
        folder = tmp_path / f"models--{repo.replace('/', '--')}"
        snapshot = folder / "snapshots" / COMMIT
        for path in (snapshot, folder / "refs", folder / "blobs"):
            path.mkdir(parents=True)
        (folder / "refs" / "main").write_text(COMMIT)
        for name, data in files.items():
            blob = folder / "blobs" / hashlib.sha256(data).hexdigest()
            blob.write_bytes(data)
            (snapshot / name).symlink_to(blob)

    return write


def safetensors(state: dict[str, Tensor], tmp_path: Path) -> bytes:
    save_file(state, tmp_path / "state.safetensors")
    return (tmp_path / "state.safetensors").read_bytes()


def timm_network(**settings: Any) -> nn.Module:
    return seeded(lambda: _loaded.import_timm().create_model("test_vit", **settings))


def timm_config(tmp_path: Path, **changes: Any) -> bytes:
    """Return a config.json as timm writes it, for 7 classes and with constants of its own."""
    from timm.models._hub import save_config_for_hf

    save_config_for_hf(timm_network(num_classes=7), tmp_path / "config.json")
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"] |= {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    return json.dumps(config | changes).encode()


def test_a_timm_model_takes_pixels(write_repo: WriteRepo, tmp_path: Path) -> None:
    network = timm_network()
    write_repo(
        "timm/test_vit.r160_in1k",
        {"model.safetensors": safetensors(network.state_dict(), tmp_path)},
    )
    loaded = load("timm:test_vit.r160_in1k")
    x = pixels(160)
    with torch.no_grad():
        got = loaded.module(x)

    told = network.pretrained_cfg
    expected = answers(network, x, torch.tensor(told["mean"]), torch.tensor(told["std"]))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    assert (loaded.info.name, loaded.info.source) == ("timm:test_vit.r160_in1k", "timm")
    assert loaded.info.architecture == "timm:test_vit"


def test_missing_timm_weights_are_reported(write_repo: WriteRepo) -> None:
    with pytest.raises(
        SatbenchError, match=r"^cannot find the weights of timm's test_vit in timm/test_vit\.r160"
    ):
        load("timm:test_vit")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timm:test_vitt", r"^unknown timm model 'test_vitt': did you mean 'test_vit'\?$"),
        ("timm:test_vit.r161", r"^unknown weights of timm's test_vit 'r161': did you mean 'r160_"),
        ("timm:resnet200", r"^timm has no pretrained weights for resnet200: name another model$"),
    ],
)
def test_an_unknown_timm_name_is_refused_with_the_nearest(text: str, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        load(text)


def test_a_repository_with_a_timm_config_is_loaded(write_repo: WriteRepo, tmp_path: Path) -> None:
    network = timm_network(num_classes=7)
    weights = safetensors(network.state_dict(), tmp_path)
    write_repo("org/robust", {"config.json": timm_config(tmp_path), "model.safetensors": weights})
    loaded = load("hf:org/robust")
    x = pixels(160)
    with torch.no_grad():
        got = loaded.module(x)

    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
    torch.testing.assert_close(got, answers(network, x, mean, std), rtol=0, atol=1e-6)
    assert got.shape == (1, 7)
    assert (loaded.info.name, loaded.info.source) == ("hf:org/robust", "hf")


def test_a_revision_can_be_named(write_repo: WriteRepo, tmp_path: Path) -> None:
    weights = safetensors(timm_network(num_classes=7).state_dict(), tmp_path)
    write_repo("org/robust", {"config.json": timm_config(tmp_path), "model.safetensors": weights})

    assert load(f"hf:org/robust@{COMMIT}").info.weights_digest == (
        load("hf:org/robust").info.weights_digest
    )


@pytest.fixture
def card(tmp_path: Path) -> Card:
    """Return the card of a tiny net, which is in `tmp_path` with its weights."""
    model = seeded(lambda: build_network("tiny(width=2)", "silu", 3))
    save_weights(model, tmp_path / "tiny.safetensors")
    card = Card(
        name="tiny-on-the-hub",
        architecture="tiny(width=2)",
        activation="silu",
        parameters=sum(p.numel() for p in model.parameters()),
        input_shape=(1, 28, 28),
        classes=3,
        weights="tiny.safetensors",
        weights_digest=digest_weights(model),
        licence="MIT",
        training=None,
    )
    write_card(card, tmp_path / "satbench.json")
    return card


def test_a_repository_with_a_card_is_loaded(
    card: Card, write_repo: WriteRepo, tmp_path: Path
) -> None:
    names = ("satbench.json", "tiny.safetensors")
    write_repo("org/tiny", {name: (tmp_path / name).read_bytes() for name in names})
    loaded = load("hf:org/tiny")

    assert loaded.card == card
    assert (loaded.info.name, loaded.info.source) == ("hf:org/tiny", "hf")
    assert digest_weights(loaded.module) == card.weights_digest


@pytest.mark.parametrize(
    ("changes", "files", "said"),
    [
        (
            None,
            {},
            r"^expected satbench\.json or a config\.json of timm or transformers in hf:org/robust",
        ),
        ({}, {}, r"^expected a file model\.safetensors in hf:org/robust, found none$"),
        (
            {"architecture": "bert"},
            {},
            r"^the config\.json of hf:org/robust is neither timm's nor transformers': expected",
        ),
        (
            {"pretrained_cfg": {}},
            {},
            r"^the config\.json of hf:org/robust is neither timm's nor transformers': expected",
        ),
        (
            {"model_args": {"checkpoint_path": "evil.pth"}},
            {},
            r"^the config\.json of hf:org/robust may not set checkpoint_path$",
        ),
        (
            {"model_args": {"dpeth": 3}},
            {},
            r"^timm cannot build the network of hf:org/robust: .*dpeth",
        ),
        (
            {},
            {"model.safetensors": b"<!doctype html>"},
            r"is a web page saved under the name of weights",
        ),
    ],
    ids=["empty", "no weights", "not timm", "no constants", "checkpoint", "settings", "page"],
)
def test_an_unusable_repository_is_refused_with_the_reason(
    changes: dict[str, Any] | None,
    files: dict[str, bytes],
    said: str,
    write_repo: WriteRepo,
    tmp_path: Path,
) -> None:
    config = {} if changes is None else {"config.json": timm_config(tmp_path, **changes)}
    write_repo("org/robust", config | files)
    with pytest.raises(SatbenchError, match=said):
        load("hf:org/robust")


@pytest.mark.parametrize("text", ["hf:org", "hf:org/repo/file", "hf:org/repo@", "hf:repo x"])
def test_a_name_that_is_not_a_repository_is_refused(text: str) -> None:
    with pytest.raises(
        SatbenchError, match=r"^expected hf:ORG/REPO, hf:ORG/REPO@REVISION or a folder, got"
    ):
        request_model(text)


@pytest.mark.parametrize(("text", "extra"), [("timm:resnet18", "timm"), ("hf:org/repo", "timm")])
def test_a_missing_package_is_refused_with_its_install_command(
    text: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_loaded, "find_spec", lambda name: None)
    with pytest.raises(SatbenchError, match=rf"not installed: pip install 'satbench\[{extra}\]'$"):
        request_model(text)


# torch.hub

HUBCONF = """
from torch import nn

def net(classes=10, bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, classes, bias=bias))

def word():
    return "model"

def fails():
    raise KeyError("weights")
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The repository owner/repo at v1 in torch's cache, as a download leaves it; it is trusted."""
    before, path = torch.hub.get_dir(), list(sys.path)
    torch.hub.set_dir(str(tmp_path))
    (tmp_path / "owner_repo_v1").mkdir()
    (tmp_path / "owner_repo_v1" / "hubconf.py").write_text(HUBCONF)
    monkeypatch.setenv("SATBENCH_TRUST", "other/repo, owner/repo")
    yield
    torch.hub.set_dir(before)
    sys.path[:] = path


@pytest.mark.usefixtures("repository")
def test_a_torch_hub_entry_is_called_with_its_arguments() -> None:
    text = "torchhub:owner/repo@v1:net(classes=7,bias=false)"
    loaded = load(text)

    assert (loaded.info.name, loaded.info.source) == (text, "torchhub")
    assert loaded.info.parameters == 7 * 784
    assert not loaded.module.training


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("word", r"^expected torchhub:.* to return a torch\.nn\.Module, got str$"),
        ("fails", r"^torchhub:owner/repo@v1:fails failed: KeyError: 'weights'$"),
        ("none", r"^torchhub:owner/repo@v1:none failed: RuntimeError: Cannot find callable none"),
    ],
)
def test_a_torch_hub_entry_that_returns_no_model_is_refused(entry: str, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        load(f"torchhub:owner/repo@v1:{entry}")


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("trusted", ["", "owner", "owner/repository", "other/repo"])
def test_code_of_an_untrusted_repository_is_not_run(
    trusted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SATBENCH_TRUST", trusted)
    with pytest.raises(
        SatbenchError, match=r"runs the code of github\.com/owner/repo .*SATBENCH_TRUST=owner/repo"
    ):
        request_model("torchhub:owner/repo@v1:net")


@pytest.mark.parametrize("text", ["torchhub:owner/repo:net", "torchhub:owner@v1:net", "torchhub:x"])
def test_a_name_without_a_revision_is_refused(text: str) -> None:
    with pytest.raises(SatbenchError, match=r"^expected torchhub:OWNER/REPO@REF:ENTRY with a tag"):
        request_model(text)


def test_an_unknown_prefix_is_taken_for_the_module_of_a_factory() -> None:
    assert request_model("timm_models:make").kind == "factory"
    with pytest.raises(UnknownNameError):
        request_model("timm:")
