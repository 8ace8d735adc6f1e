"""Presets: settings for reading the checkpoints that papers and libraries published.

A file of weights does not say how its network normalises pixels, nor, for some networks, what its
forward pass does.  A preset gives both for one code base, and names the tensors that no forward
pass uses.  Reading a preset needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from satbench.core.errors import UnknownNameError
from satbench.core.specs import split_spec


@dataclass(frozen=True)
class Preset:
    """The settings for one code base's checkpoints.

    `architectures` are specs; the first that the weights fit is used, and later ones are older
    versions of the code.  `normalize` is the normalisation of pixels if the file has none.
    `unused` names parts of the network whose weights no forward pass uses.
    """

    name: str
    architectures: tuple[str, ...]
    normalize: str
    summary: str
    source: str
    unused: tuple[str, ...] = ()
    activation: str = "relu"


_MADRY = "0.4914,0.4822,0.4465;0.2023,0.1994,0.2010"  # CIFAR in MadryLab's library
_TRADES, _WONG = "Zhang et al., 2019, arXiv:1901.08573", "Wong et al., 2020, arXiv:2001.03994"
_RICE, _AWP = "Rice et al., 2020, arXiv:2002.11569", "Wu et al., 2020, arXiv:2004.05884"
_ROBUSTNESS = "Engstrom et al., 2019, github.com/MadryLab/robustness"

PRESETS: dict[str, Preset] = {
    one.name: one
    for one in (
        Preset(
            "trades",
            ("wide-resnet(depth=34,widen=10)",),
            "none",
            "WRN-34-10 of TRADES for CIFAR-10, with or without its unused sub_block1",
            _TRADES,
            unused=("sub_block1",),
        ),
        Preset(
            "trades-resnet",
            ("cifar-resnet(depth=18)",),
            "none",
            "ResNet-18 with a 3×3 stem, as TRADES' code and its followers train it",
            _TRADES,
        ),
        Preset(
            "wong",
            (
                "preact-resnet(depth=18,shortcut=raw)",
                "preact-resnet(depth=18,shortcut=raw,final_norm=false)",
            ),
            "cifar10",
            "PreAct-ResNet-18 of fast_adversarial for CIFAR-10, whose shortcuts read the raw input",
            _WONG,
        ),
        Preset(
            "wong-imagenet",
            ("resnet(depth=50)",),
            "imagenet",
            "ResNet-50 of fast_adversarial for ImageNet",
            _WONG,
        ),
        Preset(
            "rice",
            ("preact-resnet(depth=18,shortcut=activated)",),
            "cifar10",
            "PreAct-ResNet-18 of robust_overfitting for CIFAR-10",
            _RICE,
        ),
        Preset(
            "rice-wrn",
            ("wide-resnet(depth=34,widen=10)",),
            "cifar10",
            "WRN-34-10 of robust_overfitting for CIFAR-10",
            _RICE,
            unused=("sub_block1",),
        ),
        Preset(
            "awp",
            ("preact-resnet(depth=18,shortcut=activated)",),
            "cifar10",
            "PreAct-ResNet-18 of AT-AWP for CIFAR-10",
            _AWP,
        ),
        Preset(
            "awp-wrn",
            ("wide-resnet(depth=34,widen=10)",),
            "cifar10",
            "WRN-34-10 of AT-AWP for CIFAR-10",
            _AWP,
            unused=("sub_block1",),
        ),
        Preset(
            "awp-trades",
            ("wide-resnet(depth=34,widen=10)",),
            "none",
            "WRN-34-10 of TRADES-AWP for CIFAR-10",
            _AWP,
            unused=("sub_block1",),
        ),
        Preset(
            "madry",
            ("cifar-resnet(depth=50)",),
            _MADRY,
            "ResNet-50 of MadryLab's library for CIFAR-10, with its normaliser",
            _ROBUSTNESS,
        ),
        Preset(
            "madry-imagenet",
            ("resnet(depth=50)",),
            "imagenet",
            "ResNet-50 of MadryLab's library for ImageNet, with its normaliser",
            _ROBUSTNESS,
        ),
        Preset(
            "torchvision",
            ("resnet(depth=50)",),
            "imagenet",
            "ResNet-50 of torchvision's reference scripts for ImageNet",
            "https://github.com/pytorch/vision/tree/main/references/classification",
        ),
        Preset(
            "timm",
            ("resnet(depth=50)",),
            "imagenet",
            "resnet50 of timm's training script for ImageNet",
            "Wightman, 2019, https://github.com/huggingface/pytorch-image-models",
        ),
    )
}


def find_preset(text: str) -> Preset:
    """Read `trades` or `trades(depth=28)`; settings go to the preset's architecture.

    Raises UnknownNameError with the nearest name.
    """
    name, arguments = split_spec(text)
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    found = PRESETS[name]
    specs = tuple(_with(spec, arguments) for spec in found.architectures)
    return replace(found, architectures=specs)


def _with(spec: str, arguments: dict[str, str]) -> str:
    name, own = split_spec(spec)
    inside = ",".join(f"{key}={value}" for key, value in {**own, **arguments}.items())
    return f"{name}({inside})"
