"""A user's own files and folders for networks of torchvision, timm and transformers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from satbench.core.errors import AssumptionWarning, SatbenchError, UnknownNameError
from satbench.model_zoo.card import write_card
from satbench.model_zoo.weights import save_weights
from satbench.models import LoadedModel, _loaded, load_model, request_model
from satbench.models.exporting import export_model

IMAGENET = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
TORCHVISION, TIMM = "torchvision:squeezenet1_1", "timm:test_vit"


def load(text: str, **options: str) -> LoadedModel:
    return load_model(request_model(text, **options), 1000)


def pixels(size: int) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


def answers(network: nn.Module, x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = network((x - mean.view(-1, 1, 1)) / std.view(-1, 1, 1))
    return logits


@pytest.fixture(scope="module")
def squeezenet() -> nn.Module:
    from torchvision.models import squeezenet1_1

    return seeded(lambda: squeezenet1_1(num_classes=7))


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    return seeded(lambda: _loaded.import_timm().create_model("test_vit", num_classes=7))


# Files


def as_training_saves(state: dict[str, Tensor], path: Path) -> None:
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, path)


WRITERS = {
    "w.safetensors": lambda state, path: save_file(state, path),
    "w.model": lambda state, path: torch.save(state, path),
    "best": as_training_saves,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_weights_file_of_any_name_loads_into_a_torchvision_network(
    name: str, squeezenet: nn.Module, tmp_path: Path
) -> None:
    WRITERS[name](squeezenet.state_dict(), tmp_path / name)
    x = pixels(64)
    loaded = load(f"{TORCHVISION}@{tmp_path / name}", normalize="none")
    with torch.no_grad():
        got, expected = loaded.module(x), squeezenet(x)

    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    assert got.shape == (2, 7)  # as many classes as the file has
    assert (loaded.info.name, loaded.info.source) == (Path(name).stem, "file")
    assert loaded.info.architecture == "torchvision:squeezenet1_1 normalised by none"
    assert loaded.info.assumed == ""


def test_a_weights_file_loads_into_a_timm_network(vit: nn.Module, tmp_path: Path) -> None:
    torch.save({"state_dict": vit.state_dict(), "arch": "test_vit"}, tmp_path / "w.pth.tar")
    x = pixels(160)
    with pytest.warns(AssumptionWarning, match="normalisation"):
        loaded = load(f"{TIMM}@{tmp_path / 'w.pth.tar'}")
    with torch.no_grad():
        got = loaded.module(x)

    mean, std = (torch.tensor(vit.pretrained_cfg[key]) for key in ("mean", "std"))
    torch.testing.assert_close(got, answers(vit, x, mean, std), rtol=0, atol=1e-6)
    assert (loaded.info.name, loaded.info.source) == ("w.pth", "file")
    assert loaded.info.architecture == "timm:test_vit"
    assert loaded.info.assumed.startswith("normalize=")


def test_a_timm_tag_gives_the_normalisation_of_a_local_file(tmp_path: Path) -> None:
    network = seeded(lambda: _loaded.import_timm().create_model("test_vit"))
    save_file(network.state_dict(), tmp_path / "copy.safetensors")
    x = pixels(160)
    loaded = load(f"timm:test_vit.r160_in1k@{tmp_path / 'copy.safetensors'}")
    with torch.no_grad():
        got = loaded.module(x)

    mean, std = (torch.tensor(network.pretrained_cfg[key]) for key in ("mean", "std"))
    torch.testing.assert_close(got, answers(network, x, mean, std), rtol=0, atol=1e-6)
    assert (loaded.info.name, loaded.info.assumed) == ("copy", "")


def test_one_set_and_one_prefix_can_be_selected_from_a_file(
    squeezenet: nn.Module, tmp_path: Path
) -> None:
    state = squeezenet.state_dict()
    other = {f"net.{name}": tensor + 1 for name, tensor in state.items()}
    torch.save(
        {"state_dict": other, "ema": {f"net.{k}": v for k, v in state.items()}}, tmp_path / "w"
    )
    x = pixels(64)
    loaded = load(f"{TORCHVISION}@{tmp_path / 'w'}#ema", keys="net", normalize="imagenet")
    with torch.no_grad():
        got = loaded.module(x)

    torch.testing.assert_close(got, answers(squeezenet, x, *IMAGENET), rtol=0, atol=1e-6)
    assert loaded.info.name == "w#ema"


@pytest.mark.parametrize("options", [{"keys": "net"}, {"drop_keys": "old"}], ids=["keys", "drop"])
def test_one_of_two_networks_in_a_file_can_be_selected(
    options: dict[str, str], squeezenet: nn.Module, tmp_path: Path
) -> None:
    state, x = squeezenet.state_dict(), pixels(64)
    other = {f"old.{name}": tensor + 1 for name, tensor in state.items()}
    torch.save({**{f"net.{k}": v for k, v in state.items()}, **other}, tmp_path / "w")
    text = f"{TORCHVISION}@{tmp_path / 'w'}"
    with pytest.raises(SatbenchError, match="--keys"):
        load(text, normalize="none")
    with torch.no_grad():
        got, expected = load(text, normalize="none", **options).module(x), squeezenet(x)

    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_constants_in_a_file_override_those_of_the_library(
    squeezenet: nn.Module, tmp_path: Path
) -> None:
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
    state = {f"model.{name}": tensor for name, tensor in squeezenet.state_dict().items()}
    torch.save(state | {"mean": mean, "std": std}, tmp_path / "w.pt")
    text, x = f"{TORCHVISION}@{tmp_path / 'w.pt'}", pixels(64)
    with torch.no_grad():
        got = load(text).module(x)

    torch.testing.assert_close(got, answers(squeezenet, x, mean, std), rtol=0, atol=1e-6)
    with pytest.raises(SatbenchError, match=r"include the normalisation .* which is not cifar10"):
        load(text, normalize="cifar10")


def test_a_copy_of_torchvisions_weights_is_recognised_by_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    torch.save(seeded(squeezenet1_1).state_dict(), tmp_path / "my-copy")
    digest = hashlib.sha256((tmp_path / "my-copy").read_bytes()).hexdigest()
    url = f"https://x.invalid/squeezenet1_1-{digest[:8]}.pth"
    monkeypatch.setattr(SqueezeNet1_1_Weights.IMAGENET1K_V1.value, "url", url)

    assert load(f"{TORCHVISION}@{tmp_path / 'my-copy'}").info.assumed == ""


@pytest.mark.slow
def test_torchvisions_weights_load_into_the_network_that_torchvision_builds_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision's GoogLeNet transforms its input again only if it has published weights."""
    from torchvision.models import GoogLeNet_Weights, googlenet

    network = seeded(lambda: googlenet(init_weights=False, aux_logits=True, transform_input=True))
    torch.save(network.state_dict(), tmp_path / "w")
    digest = hashlib.sha256((tmp_path / "w").read_bytes()).hexdigest()
    name = f"googlenet-{digest[:8]}.pth"
    monkeypatch.setattr(GoogLeNet_Weights.IMAGENET1K_V1.value, "url", f"https://x.invalid/{name}")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "w").rename(tmp_path / "checkpoints" / name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    x = pixels(32)
    expected = answers(network, x, *IMAGENET)
    for text in ("IMAGENET1K_V1", tmp_path / "checkpoints" / name):
        with torch.no_grad():
            got = load(f"torchvision:googlenet@{text}").module(x)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_an_unusable_file_is_refused_with_the_reason(squeezenet: nn.Module, tmp_path: Path) -> None:
    torch.save(squeezenet.state_dict(), path := tmp_path / "w.pt")
    torch.save({"fc.weight": torch.zeros(3, 2)}, other := tmp_path / "other.pt")
    cases = {
        f"{TORCHVISION}@{tmp_path / 'none.pt'}": "expected weights at .*none.pt, which is missing",
        f"{TIMM}@{tmp_path / 'none.pt'}": "expected weights at .*none.pt, which is missing",
        f"{TIMM}@": "expected timm:NAME@FILE, got 'timm:test_vit@'",
        f"{TORCHVISION}@{other}": "do not fit the model .*check --arch",
        f"{TIMM}@{path}": "do not fit the model .*check --arch",
        f"torchvision:fcn_resnet50@{path}": "expected a classifier of images, got",
        f"torchvision:inception_v3@{path}": "a file does not say whether .* second time",
    }
    for text, said in cases.items():
        with pytest.raises(SatbenchError, match=f"^(the weights .*)?{said}"):
            load(text)
    for text in (f"torchvision:squeezenet@{path}", f"timm:test_vat@{path}"):
        with pytest.raises(UnknownNameError, match="did you mean"):
            load(text)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("torchvision:resnet50@IMAGENET1K_V1", {"normalize": "none"}, "for files of weights"),
        ("timm:test_vit.r160_in1k@{file}", {"keys": "net"}, "timm already determines these"),
        ("timm:test_vit@{file}", {"preset": "trades"}, "already determines --preset"),
        ("torchvision:resnet18@{file}", {"architecture": "x", "activation": "relu"}, "--arch and"),
        ("hf:org/repo", {"normalize": "none"}, "for files of weights"),
    ],
)
def test_options_for_unknown_files_are_refused_for_known_models(
    text: str, options: dict[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "w").write_bytes(b"w")
    with pytest.raises(SatbenchError, match=said):
        request_model(text.format(file=tmp_path / "w"), **options)


# Folders


def test_a_folder_in_timms_format_is_loaded(vit: nn.Module, tmp_path: Path) -> None:
    from timm.models._hub import save_config_for_hf

    save_config_for_hf(vit, tmp_path / "config.json")
    save_file(vit.state_dict(), tmp_path / "model.safetensors")
    x = pixels(160)
    loaded = load(f"hf:{tmp_path}")
    with torch.no_grad():
        got = loaded.module(x)

    mean, std = (torch.tensor(vit.pretrained_cfg[key]) for key in ("mean", "std"))
    torch.testing.assert_close(got, answers(vit, x, mean, std), rtol=0, atol=1e-6)
    assert (loaded.info.name, loaded.info.source) == (tmp_path.name, "file")


@pytest.mark.slow
def test_the_folder_of_an_exported_model_is_loaded(tmp_path: Path) -> None:
    """The folder has the hub's layout, as `satbench export --form hub` writes it, or a card."""
    shipped = load("fmnist-standard-tiny-relu-s0")
    export_model(shipped, "hub", tmp_path / "out")
    (beside := tmp_path / "beside").mkdir()
    assert shipped.card
    save_weights(shipped.module, beside / shipped.card.weights)
    write_card(shipped.card, beside / "satbench.json")
    for folder in (tmp_path / "out", beside):
        loaded = load(f"hf:{folder}")
        assert (loaded.card, loaded.info.source) == (shipped.card, "file")
        assert loaded.info.weights_digest == shipped.info.weights_digest


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "expected satbench.json or a config.json of timm or transformers in hf:"),
        ({"config.json": "{"}, "is not JSON"),
        ({"config.json": '{"architecture": "test_vit"}'}, "is neither timm's nor transformers'"),
        ({"config.json": '{"model_type": "vit"}'}, "expected a file model.safetensors in hf:"),
        (
            {"config.json": '{"model_type": "vit"}', "model.safetensors": ""},
            "expected a file preprocessor_config.json in hf:",
        ),
    ],
)
def test_an_unusable_folder_is_refused_with_the_reason(
    files: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satbench.models._hugging_face.need", lambda *_: None)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SatbenchError, match=said):
        load(f"hf:{tmp_path}")


def test_a_missing_folder_is_reported() -> None:
    with pytest.raises(SatbenchError, match=r"^expected a folder at nowhere"):
        request_model("hf:./nowhere")


def test_missing_transformers_is_refused_with_its_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    monkeypatch.setattr(_loaded, "find_spec", lambda name: None)
    with pytest.raises(SatbenchError, match=r"pip install 'satbench\[transformers\]'$"):
        load(f"hf:{tmp_path}")
