"""Image classifiers of Hugging Face's transformers, with the pixel values of their processor.

No foreign code runs: weights are safetensors, and code in a repository is ignored.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.models._hub import one_line
from satbench.models._loaded import strangers_code
from satbench.networks.normalize import Normalize

CONFIG, PROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
"""The needed files of a folder or repository."""

_OF_PIXELS = ("do_rescale", "do_normalize", "do_flip_channel_order")
"""What a processor may do to values; its other operations change the size."""

_SAME = 1e-4


def build_with_weights(folder: Path, text: str) -> nn.Module:
    """Build the classifier in a folder: from pixels in [0, 1] to logits, in eval mode.

    `text` is the user's name for it.  Raises SatbenchError if transformers cannot build it without
    code from the folder, if weights do not fit, and if the image processor does more to pixels than
    shift and scale each channel.
    """
    transformers = import_module("transformers")
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    here = {"local_files_only": True, "trust_remote_code": False}
    try:
        with strangers_code():
            network, loading = transformers.AutoModelForImageClassification.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, dtype=torch.float32, **here
            )
            processor = transformers.AutoImageProcessor.from_pretrained(folder, **here)
    except Exception as error:  # transformers can raise anything for foreign files
        raise SatbenchError(f"transformers cannot load {text}: {one_line(error)}") from error
    finally:
        transformers.logging.set_verbosity(before)
    wrong = {kind: sorted(map(str, names)) for kind, names in loading.items() if names}
    if wrong:
        said = "; ".join(f"{kind}: {', '.join(names[:3])}" for kind, names in wrong.items())
        raise SatbenchError(
            f"the weights of {text} do not fit an image classifier of its configuration ({said}): "
            "expected a model that was trained and saved as an image classifier"
        )
    return nn.Sequential(*_first_layers(processor, text), _Logits(network)).eval()


class _Logits(nn.Module):
    """A classifier of transformers that returns only its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        return cast(Tensor, self.network(pixel_values=x).logits)


class _Channels(nn.Module):
    """The channels of images in another order, such as blue, green, red."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x[:, self.order]


def _first_layers(processor: Any, text: str) -> list[nn.Module]:
    """Measure what a processor does to pixel values; return layers that do the same.

    It gets a black image, and one with each channel at its maximum.  Then a random image is
    processed both ways and compared.
    """
    size, kind = 8, type(processor).__name__
    probes = torch.zeros(4, 3, size, size, dtype=torch.uint8)
    for channel in range(3):
        probes[channel + 1, channel] = 255
    noise = torch.randint(256, (3, size, size), generator=torch.Generator().manual_seed(0))
    try:
        black, *lit = (_processed(processor, one) for one in probes)
        moved = torch.stack([(one - black)[:, 0, 0] for one in lit])  # (colour, channel)
        order = moved.abs().argmax(0)
        scale = moved.gather(0, order[None])[0]
        mean = [round(float(v), 7) for v in -black[:, 0, 0] / scale]
        std = [round(float(v), 7) for v in 1 / scale]
        layers: list[nn.Module] = [Normalize(tuple(mean), tuple(std))]
        if order.tolist() != [0, 1, 2]:
            layers.insert(0, _Channels(order.tolist()))
        got = nn.Sequential(*layers)((noise / 255)[None])[0]
        off = float((got - _processed(processor, noise.to(torch.uint8))).abs().max())
    except Exception as error:  # a processor can raise anything for a small image
        raise SatbenchError(
            f"cannot tell what the {kind} of {text} does to pixels ({one_line(error)}): "
            "wrap the model in a function, --model package.module:factory"
        ) from error
    if not off <= _SAME * max(1.0, float(got.abs().max())):
        raise SatbenchError(
            f"the {kind} of {text} does more to pixels than shift and scale each channel: "
            "wrap the model in a function, --model package.module:factory"
        )
    return layers


def _processed(processor: Any, image: Tensor) -> Tensor:
    """Return an image, (3, H, W) uint8, as processed, if the processor keeps the size."""
    off = {
        name: False
        for name in vars(processor) | vars(type(processor))
        if name.startswith("do_") and name not in _OF_PIXELS
    }
    pixels: Tensor = processor(
        image, return_tensors="pt", input_data_format="channels_first", **off
    )["pixel_values"][0]
    if pixels.shape != image.shape:
        raise SatbenchError(f"it turns the shape {tuple(image.shape)} into {tuple(pixels.shape)}")
    return pixels.float()
