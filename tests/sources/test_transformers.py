"""Image classifiers of transformers, from folders that it saves, against its own pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from satbench.core.errors import SatbenchError
from satbench.models import load_model, request_model

transformers: Any


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """Import the package for these tests, not while tests are collected."""
    global transformers
    why = "pip install 'satbench[transformers]'"
    transformers = pytest.importorskip("transformers", reason=why)


def resnet() -> Any:
    return transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], num_labels=5, layer_type="basic"
    )


def vit() -> Any:
    return transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=5, image_size=32, patch_size=8,
    )  # fmt: skip


PROCESSORS: dict[str, Callable[[], Any]] = {
    "mean and deviation": lambda: transformers.ConvNextImageProcessor(
        image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]
    ),
    "no normalisation": lambda: transformers.ViTImageProcessor(do_normalize=False),
    "no scaling": lambda: transformers.ViTImageProcessor(
        do_rescale=False, image_mean=[120.0] * 3, image_std=[60.0] * 3
    ),
    "blue first": lambda: transformers.MobileViTImageProcessor(),
    "twice": lambda: transformers.EfficientNetImageProcessor(image_std=[0.4, 0.5, 0.6]),
    "to one below": lambda: transformers.EfficientNetImageProcessor(
        rescale_offset=True, rescale_factor=1 / 127.5, do_normalize=False, include_top=False
    ),
}


def saved(config: Any, processor: Any, folder: Path) -> Any:
    """Save a classifier with random weights and its processor in a folder; -> the classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = transformers.AutoModelForImageClassification.from_config(config).eval()
        for tensor in network.state_dict().values():
            if tensor.dtype == torch.float32:
                tensor.uniform_(0.2, 1) if tensor.dim() == 1 else tensor.normal_(0, 0.5)
    transformers.logging.disable_progress_bar()
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return network


def by_transformers(network: Any, processor: Any, images: Tensor) -> Tensor:
    """Return the logits of a processor and a network.  (N, 3, H, W) uint8 -> (N, K)."""
    sizes = {"do_resize": False, "do_center_crop": False}
    pixels = processor(list(images), return_tensors="pt", **sizes)["pixel_values"]
    with torch.no_grad():
        logits: Tensor = network(pixels).logits
    return logits


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", PROCESSORS)
@pytest.mark.parametrize("config", [resnet, vit])
def test_the_logits_equal_those_of_transformers_own_pipeline(
    config: Callable[[], Any], kind: str, tmp_path: Path
) -> None:
    processor, wanted = PROCESSORS[kind](), config()
    network = saved(wanted, processor, tmp_path / "mine")
    images = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    loaded = load_model(request_model(f"hf:{tmp_path / 'mine'}"), 5)
    with torch.no_grad():
        got = loaded.module(images / 255)

    expected = by_transformers(network, processor, images.to(torch.uint8))
    assert expected.std() > 0.01
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert (loaded.info.name, loaded.info.source) == ("mine", "file")
    assert loaded.info.architecture == f"transformers:{wanted.model_type}"


def test_the_order_of_channels_of_the_processor_is_kept(tmp_path: Path) -> None:
    """A processor that reverses the order of channels gives another model."""
    logits = []
    for kind in ("blue first", "no normalisation"):
        saved(resnet(), PROCESSORS[kind](), folder := tmp_path / kind)
        x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            logits.append(load_model(request_model(f"hf:{folder}"), 5).module(x))
            logits.append(load_model(request_model(f"hf:{folder}"), 5).module(x.flip(1)))

    torch.testing.assert_close(logits[0], logits[3])
    assert (logits[0] - logits[2]).abs().max() > 1e-4


def without_head(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    kept = {k: v for k, v in state.items() if "classifier" not in k}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def of_another_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_sizes": [4, 16]}))


def with_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Model"}
    (folder / "config.json").write_text(
        json.dumps(config | {"model_type": "evil", "auto_map": code})
    )
    (folder / "evil.py").write_text("raise SystemExit('code of a stranger was run')")


def of_text(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert"}')


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without_head, r"do not fit an image classifier .*missing_keys: classifier"),
        (of_another_width, r"^transformers cannot load|do not fit an image classifier"),
        (with_code, r"^transformers cannot load hf:"),
        (of_text, r"^transformers cannot load hf:"),
        (pickled, r"^expected a file model\.safetensors in hf:"),
    ],
)
def test_a_folder_without_a_classifier_is_refused(
    spoil: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    saved(resnet(), PROCESSORS["no normalisation"](), tmp_path)
    spoil(tmp_path)
    with pytest.raises(SatbenchError, match=said):
        load_model(request_model(f"hf:{tmp_path}"), 5)


def test_a_processor_that_does_more_than_scale_pixels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = PROCESSORS["no normalisation"]()
    saved(resnet(), processor, tmp_path)

    def curved(self: Any, image: Tensor, **_: Any) -> dict[str, list[Tensor]]:
        return {"pixel_values": [(image / 255) ** 2]}

    monkeypatch.setattr(type(processor), "__call__", curved)
    with pytest.raises(SatbenchError, match=r"ViTImageProcessor.* does more to pixels than"):
        load_model(request_model(f"hf:{tmp_path}"), 5)
