"""Section 5: depth, width, resolution, and all three at once."""

from __future__ import annotations

from satbench.core.errors import SatbenchError
from satbench.studies.definitions.shared import (
    DEFAULT_RECIPE,
    EARLIER_COLUMNS,
    PGD,
    VERDICT,
    shortened,
)
from satbench.studies.design import Arm, Axis, Line, Pair, PaperNumbers, Pool, Study

_SMALL: dict[str, dict[str, object]] = {
    "base": {"architecture": "small(width=8,blocks=1)"},
    "2× deeper": {"architecture": "small(width=8,blocks=2)"},
    "3× deeper": {"architecture": "small(width=8,blocks=3)"},
    "2× wider": {"architecture": "small(width=16,blocks=1)"},
    "20 px": {"architecture": "small(width=8,blocks=1)", "dataset": "fashion-mnist@20"},
    "40 px": {"architecture": "small(width=8,blocks=1)", "dataset": "fashion-mnist@40"},
    "compound": {"architecture": "small(width=12,blocks=2)", "dataset": "fashion-mnist@34"},
}

# For the CIFAR-10 recipes: depths of 2, 4 and 6 blocks per stage, widths of 4 and 8.
_WIDE_RESNETS: dict[str, dict[str, object]] = {
    "base (WRN-16-4)": {"architecture": "wide-resnet(depth=16,widen=4)"},
    "2× deeper (WRN-28-4)": {"architecture": "wide-resnet(depth=28,widen=4)"},
    "3× deeper (WRN-40-4)": {"architecture": "wide-resnet(depth=40,widen=4)"},
    "2× wider (WRN-16-8)": {"architecture": "wide-resnet(depth=16,widen=8)"},
    "24 px": {"architecture": "wide-resnet(depth=16,widen=4)", "dataset": "cifar10@24"},
    "40 px": {"architecture": "wide-resnet(depth=16,widen=4)", "dataset": "cifar10@40"},
    "compound (WRN-28-6, 40 px)": {
        "architecture": "wide-resnet(depth=28,widen=6)",
        "dataset": "cifar10@40",
    },
}

_RESNETS: dict[str, dict[str, object]] = {
    "base (ResNet-50)": {"architecture": "resnet(depth=50,statistics=sat)"},
    "2× deeper (ResNet-101)": {"architecture": "resnet(depth=101,statistics=sat)"},
    "3× deeper (ResNet-152)": {"architecture": "resnet(depth=152,statistics=sat)"},
    "2× wider (ResNeXt-50 32x4d)": {"architecture": "resnext(depth=50,width=4,statistics=sat)"},
    "4× wider (ResNeXt-50 32x8d)": {"architecture": "resnext(depth=50,width=8,statistics=sat)"},
    "299 px": {"architecture": "resnet(depth=50,statistics=sat)", "crop": "299"},
    "380 px": {"architecture": "resnet(depth=50,statistics=sat)", "crop": "380"},
    "compound (ResNeXt-152 32x8d, 380 px)": {
        "architecture": "resnext(depth=152,width=8,statistics=sat)",
        "crop": "380",
    },
}

# Tan & Le, 2019, arXiv:1905.11946: the side in pixels of B0 to B7.
_EFFICIENTNETS: dict[str, dict[str, object]] = {
    f"B{k}" if k else "base (B0)": {"architecture": f"efficientnet(variant=b{k})", "crop": side}
    for k, side in enumerate(("224", "240", "260", "300", "380", "456", "528", "600"))
}

_SCALES = {
    DEFAULT_RECIPE: _SMALL,
    "sat-cifar10": _WIDE_RESNETS,
    "sat-imagenet-resnet50": _RESNETS,
    "sat-imagenet-efficientnet": _EFFICIENTNETS,
}


def _axis(label: str, sizes: dict[float, str]) -> Axis:
    return Axis(
        label,
        tuple(
            Line(name, tuple((place, f"{name}, {size}") for place, size in sizes.items()))
            for name in ("ReLU", "SILU")
        ),
    )


_AXES = {
    DEFAULT_RECIPE: (
        _axis("depth, times the base", {1: "base", 2: "2× deeper", 3: "3× deeper"}),
        _axis("width, times the base", {1: "base", 2: "2× wider"}),
        _axis("side of the image in pixels", {20: "20 px", 28: "base", 40: "40 px"}),
    ),
    "sat-cifar10": (
        _axis(
            "depth, times the base",
            {1: "base (WRN-16-4)", 2: "2× deeper (WRN-28-4)", 3: "3× deeper (WRN-40-4)"},
        ),
        _axis("width, times the base", {1: "base (WRN-16-4)", 2: "2× wider (WRN-16-8)"}),
        _axis("side of the image in pixels", {24: "24 px", 32: "base (WRN-16-4)", 40: "40 px"}),
    ),
    "sat-imagenet-resnet50": (
        _axis(
            "depth in layers",
            {50: "base (ResNet-50)", 101: "2× deeper (ResNet-101)", 152: "3× deeper (ResNet-152)"},
        ),
        _axis(
            "side of the image in pixels",
            {224: "base (ResNet-50)", 299: "299 px", 380: "380 px"},
        ),
    ),
    "sat-imagenet-efficientnet": (
        _axis("B0 to B7", {k: f"B{k}" if k else "base (B0)" for k in range(8)}),
    ),
}

# The README of the paper's repository; PGD-50 by its authors.
_PAPER = PaperNumbers(
    ("SILU network", "clean (%)", "PGD-50 (%)"),
    (
        ("ResNet-50, 224 px", "69.7", "41.9"),
        ("2× deeper: ResNet-101", "72.9", "45.2"),
        ("3× deeper: ResNet-152", "74.0", "45.8"),
        ("2× wider: ResNeXt-50 32x4d", "71.1", "42.2"),
        ("4× wider: ResNeXt-50 32x8d", "73.3", "44.8"),
        ("299 px", "70.7", "43.6"),
        ("380 px", "71.6", "43.8"),
        ("compound: ResNeXt-152 32x8d, 380 px", "78.0", "51.0"),
        ("EfficientNet-L1, enhanced", "82.2", "58.6 (PGD-200)"),
    ),
    "ImageNet, Linf 4/255, one training run each; no number of the ReLU curves could be verified.",
)


def study(recipe: str) -> Study:
    """Return the study for a recipe.  Raises SatbenchError for a recipe without sizes."""
    if recipe not in _SCALES:
        raise SatbenchError(
            f"expected one of the recipes {', '.join(_SCALES)} for the study scaling, got "
            f"{recipe!r}"
        )
    sizes = _SCALES[recipe]
    base = next(iter(sizes))
    arms = [
        Arm(f"{name}, {size}", {"activation": name.lower(), **settings})
        for name in ("ReLU", "SILU")
        for size, settings in sizes.items()
    ]
    grown = [size for size in sizes if size != base]
    return Study(
        name="scaling",
        title="Scaling in depth, width and resolution",
        section="section 5",
        question="Does a larger network, or a larger image, make adversarial training stronger, "
        "and does SILU keep or increase its lead over ReLU?",
        setup="The base network grows in depth, width or resolution, or in all three (compound "
        "scaling, as for EfficientNets; Tan & Le, 2019, arXiv:1905.11946), with ReLU and "
        "with SILU.  eps is the same at every resolution.",
        arms=tuple(arms),
        seeds=3,
        evaluations=EARLIER_COLUMNS,
        verdict=VERDICT,
        paper_verdict=PGD.name,
        primary=Pool(
            "SILU at all sizes",
            "ReLU",
            tuple(Pair(f"SILU, {size}", f"ReLU, {size}") for size in sizes),
        ),
        contrasts=(
            *(Pair(f"SILU, {size}", f"ReLU, {size}") for size in sizes),
            *(Pair(f"SILU, {size}", f"SILU, {base}") for size in grown),
            *(Pair(f"ReLU, {size}", f"ReLU, {base}") for size in grown),
        ),
        paper=_PAPER,
        base=shortened(recipe),
        recipe=recipe,
        axes=_AXES.get(recipe, ()),
    )
