"""Every preset against a small implementation of the published network, on files in its layout.

The networks below are written from the papers as plain functions of a state dict and use none of
satbench's own networks.  Names and shapes are those of the code bases.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.model_zoo.presets import PRESETS, find_preset
from satbench.models import LoadedModel, load_model, request_model

State = dict[str, Tensor]
CLASSES = 7
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
MADRY = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NONE = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


# Forward passes


def norm(s: State, name: str, x: Tensor) -> Tensor:
    kind = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(s[f"{name}.{one}"] for one in kind))


def conv(s: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = s[f"{name}.weight"]
    return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)


def blocks(s: State, stage: str) -> list[str]:
    inside = {name.removeprefix(stage).split(".")[0] for name in s if name.startswith(stage)}
    return [f"{stage}{one}" for one in sorted(inside, key=int)]


def head(s: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x.mean((2, 3)), s[f"{name}.weight"], s[f"{name}.bias"])


def wide_resnet(s: State, x: Tensor) -> Tensor:
    """Zagoruyko & Komodakis, 2016: activations before convolutions, the shortcut after them."""
    x = conv(s, "conv1", x)
    for stage in (1, 2, 3):
        for place, block in enumerate(blocks(s, f"block{stage}.layer.")):
            stride = 2 if stage > 1 and place == 0 else 1
            active = F.relu(norm(s, f"{block}.bn1", x))
            if f"{block}.convShortcut.weight" in s:
                x = conv(s, f"{block}.convShortcut", active, stride)
            out = conv(s, f"{block}.conv1", active, stride)
            x = x + conv(s, f"{block}.conv2", F.relu(norm(s, f"{block}.bn2", out)))
    return head(s, "fc", F.relu(norm(s, "bn1", x)))


def preact_resnet(s: State, x: Tensor, raw: bool) -> Tensor:
    """He et al., 2016b; `raw`: a projection reads the input before the activation."""
    x = conv(s, "conv1", x)
    for stage in (1, 2, 3, 4):
        for place, block in enumerate(blocks(s, f"layer{stage}.")):
            stride = 2 if stage > 1 and place == 0 else 1
            active = F.relu(norm(s, f"{block}.bn1", x))
            if f"{block}.shortcut.0.weight" in s:
                x = conv(s, f"{block}.shortcut.0", x if raw else active, stride)
            out = conv(s, f"{block}.conv1", active, stride)
            x = x + conv(s, f"{block}.conv2", F.relu(norm(s, f"{block}.bn2", out)))
    return head(s, "linear", F.relu(norm(s, "bn", x)) if "bn.weight" in s else x)


def resnet(s: State, x: Tensor, shortcut: str, last: str, imagenet: bool) -> Tensor:
    """He et al., 2016a: two convolutions a block, or three with the stride in the middle."""
    x = F.relu(
        norm(
            s,
            "bn1",
            F.conv2d(x, s["conv1.weight"], stride=2, padding=3)
            if imagenet
            else conv(s, "conv1", x),
        )
    )
    if imagenet:
        x = F.max_pool2d(x, 3, 2, 1)
    for stage in (1, 2, 3, 4):
        for place, block in enumerate(blocks(s, f"layer{stage}.")):
            stride = 2 if stage > 1 and place == 0 else 1
            three = f"{block}.conv3.weight" in s
            out = conv(s, f"{block}.conv1", x, 1 if three else stride)
            out = conv(
                s, f"{block}.conv2", F.relu(norm(s, f"{block}.bn1", out)), stride if three else 1
            )
            out = norm(s, f"{block}.bn2", out)
            if three:
                out = norm(s, f"{block}.bn3", conv(s, f"{block}.conv3", F.relu(out)))
            if f"{block}.{shortcut}.0.weight" in s:
                x = conv(s, f"{block}.{shortcut}.0", x, stride)
                x = norm(s, f"{block}.{shortcut}.1", x)
            x = F.relu(out + x)
    return head(s, last, x)


cifar_resnet = partial(resnet, shortcut="shortcut", last="linear", imagenet=False)
imagenet_resnet = partial(resnet, shortcut="downsample", last="fc", imagenet=True)


# Names and shapes

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def norm_shapes(name: str, n: int) -> Shapes:
    for one in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{one}", (n,)
    yield f"{name}.num_batches_tracked", ()


def linear_shapes(name: str, n: int) -> Shapes:
    yield f"{name}.weight", (CLASSES, n)
    yield f"{name}.bias", (CLASSES,)


def wide_shapes(depth: int, widen: int, extra: bool) -> Shapes:
    widths, count = [16, 16 * widen, 32 * widen, 64 * widen], (depth - 4) // 6
    yield "conv1.weight", (16, 3, 3, 3)
    for name, stage in [
        ("block1", 1),
        *([("sub_block1", 1)] if extra else []),
        ("block2", 2),
        ("block3", 3),
    ]:
        for place in range(count):
            inside, out = widths[stage if place else stage - 1], widths[stage]
            block = f"{name}.layer.{place}"
            yield from norm_shapes(f"{block}.bn1", inside)
            yield f"{block}.conv1.weight", (out, inside, 3, 3)
            yield from norm_shapes(f"{block}.bn2", out)
            yield f"{block}.conv2.weight", (out, out, 3, 3)
            if inside != out:
                yield f"{block}.convShortcut.weight", (out, inside, 1, 1)
    yield from norm_shapes("bn1", widths[3])
    yield from linear_shapes("fc", widths[3])


def preact_shapes(final_norm: bool) -> Shapes:
    yield "conv1.weight", (64, 3, 3, 3)
    for stage in (1, 2, 3, 4):
        for place in (0, 1):
            out = 32 * 2**stage
            inside = out // 2 if stage > 1 and place == 0 else out
            block = f"layer{stage}.{place}"
            yield from norm_shapes(f"{block}.bn1", inside)
            yield f"{block}.conv1.weight", (out, inside, 3, 3)
            yield from norm_shapes(f"{block}.bn2", out)
            yield f"{block}.conv2.weight", (out, out, 3, 3)
            if inside != out:
                yield f"{block}.shortcut.0.weight", (out, inside, 1, 1)
    if final_norm:
        yield from norm_shapes("bn", 512)
    yield from linear_shapes("linear", 512)


def resnet_shapes(depth: int, shortcut: str, last: str, stem: int) -> Shapes:
    times, wide = (2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3), 4 if depth == 50 else 1
    yield "conv1.weight", (64, 3, stem, stem)
    yield from norm_shapes("bn1", 64)
    inside = 64
    for stage, count in enumerate(times, 1):
        for place in range(count):
            planes, block = 32 * 2**stage, f"layer{stage}.{place}"
            if wide == 4:
                kernels = [(planes, inside, 1), (planes, planes, 3), (4 * planes, planes, 1)]
            else:
                kernels = [(planes, inside, 3), (planes, planes, 3)]
            for number, (rows, columns, side) in enumerate(kernels, 1):
                yield f"{block}.conv{number}.weight", (rows, columns, side, side)
                yield from norm_shapes(f"{block}.bn{number}", rows)
            if place == 0 and (stage > 1 or wide == 4):
                yield f"{block}.{shortcut}.0.weight", (wide * planes, inside, 1, 1)
                yield from norm_shapes(f"{block}.{shortcut}.1", wide * planes)
            inside = wide * planes
    yield from linear_shapes(last, 512 * wide)


@cache
def state_of(make: Callable[..., Shapes], *arguments: Any) -> State:
    """Draw all weights of a layout at random."""
    draw = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in make(*arguments):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(5)
        elif len(shape) > 1:
            fan_in = shape[1] * shape[-1] ** (len(shape) - 2)
            state[name] = torch.randn(shape, generator=draw) * fan_in**-0.5
        else:
            state[name] = torch.rand(shape, generator=draw) + 0.5
    return state


def trades_state(depth: int = 10, widen: int = 1) -> State:
    return state_of(wide_shapes, depth, widen, True)


def wide_state(depth: int = 10, widen: int = 1) -> State:
    return state_of(wide_shapes, depth, widen, False)


def preact_state(final_norm: bool = True) -> State:
    return state_of(preact_shapes, final_norm)


def cifar_state(depth: int = 18) -> State:
    return state_of(resnet_shapes, depth, "shortcut", "linear", 3)


def imagenet_state(depth: int = 18) -> State:
    return state_of(resnet_shapes, depth, "downsample", "fc", 7)


# Layouts of files


def bare(state: State) -> Any:
    return state


def rice(state: State) -> Any:
    return {
        "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
        "test_robust_acc": np.float64(0.5),
        "opt_state": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": []},
    }


def madry(state: State, constants: Any = MADRY) -> Any:
    held = {f"module.model.{name}": tensor for name, tensor in state.items()}
    held |= {f"module.attacker.model.{name}": tensor for name, tensor in state.items()}
    for place in ("normalizer", "attacker.normalize"):
        for name, values in zip(("new_mean", "new_std"), constants, strict=True):
            held[f"module.{place}.{name}"] = torch.tensor(values).view(3, 1, 1)
    return {"model": held, "optimizer": {"state": {}}, "schedule": {"last_epoch": 3}, "epoch": 4}


def torchvision(state: State) -> Any:
    return {
        "model": state,
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}},
        "lr_scheduler": {"last_epoch": 3},
        "epoch": 4,
        "args": argparse.Namespace(model="resnet50", output_dir=Path("runs")),
        "scaler": {"scale": 1.0},
    }


def timm(state: State) -> Any:
    return {
        "epoch": 4,
        "arch": "resnet50",
        "state_dict": state,
        "optimizer": {"state": {}},
        "version": 2,
        "args": argparse.Namespace(model="resnet50", mean=None),
        "amp_scaler": {"scale": 1.0},
        "metric": 0.7,
    }


raw, activated = partial(preact_resnet, raw=True), partial(preact_resnet, raw=False)

Case = tuple[str, Callable[[], State], Callable[[State], Any], Callable[..., Tensor], Any]

# The preset, the weights, the layout of the file, the network, the normalisation.
EVERY_DAY: dict[str, Case] = {
    "TRADES": ("trades(depth=10,widen=1)", trades_state, bare, wide_resnet, NONE),
    "TRADES without the extra part": (
        *("trades(depth=10,widen=1)", wide_state, bare, wide_resnet, NONE),
    ),
    "TRADES in parallel": ("trades(depth=10,widen=1)", trades_state, rice, wide_resnet, NONE),
    "Wong": ("wong", preact_state, bare, raw, CIFAR),
    "Rice, WRN": ("rice-wrn(depth=10,widen=1)", wide_state, rice, wide_resnet, CIFAR),
    "AWP, WRN": ("awp-wrn(depth=10,widen=1)", trades_state, rice, wide_resnet, CIFAR),
    "AWP, TRADES": ("awp-trades(depth=10,widen=1)", wide_state, rice, wide_resnet, NONE),
    "MadryLab": ("madry(depth=18)", cifar_state, madry, cifar_resnet, MADRY),
}
SLOW: dict[str, Case] = {
    "Rice": ("rice", preact_state, rice, activated, CIFAR),
    "torchvision": (
        "torchvision(depth=18)",
        imagenet_state,
        torchvision,
        imagenet_resnet,
        IMAGENET,
    ),
    "TRADES at full size": ("trades", partial(trades_state, 34, 10), bare, wide_resnet, NONE),
    "TRADES, ResNet": ("trades-resnet", cifar_state, bare, cifar_resnet, NONE),
    "Wong, first models": ("wong", partial(preact_state, False), bare, raw, CIFAR),
    "Wong, ImageNet": (
        *("wong-imagenet", partial(imagenet_state, 50), rice, imagenet_resnet, IMAGENET),
    ),
    "AWP": ("awp", preact_state, rice, activated, CIFAR),
    "Rice, WRN at full size": (
        *("rice-wrn", partial(wide_state, 34, 10), rice, wide_resnet, CIFAR),
    ),
    "MadryLab at full size": ("madry", partial(cifar_state, 50), madry, cifar_resnet, MADRY),
    "MadryLab, constants of its own": (
        *("madry(depth=18)", cifar_state, partial(madry, constants=CIFAR), cifar_resnet, CIFAR),
    ),
    "MadryLab, weights alone": ("madry(depth=18)", cifar_state, bare, cifar_resnet, MADRY),
    "MadryLab, ImageNet": (
        *("madry-imagenet", partial(imagenet_state, 50)),
        *(partial(madry, constants=IMAGENET), imagenet_resnet, IMAGENET),
    ),
    "torchvision at full size": (
        *("torchvision", partial(imagenet_state, 50), torchvision, imagenet_resnet, IMAGENET),
    ),
    "timm": ("timm", partial(imagenet_state, 50), timm, imagenet_resnet, IMAGENET),
}
CASES = EVERY_DAY | SLOW


def test_every_preset_has_a_case() -> None:
    assert {case[0].partition("(")[0] for case in CASES.values()} == set(PRESETS)


def test_the_documentation_has_a_row_for_each_preset() -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = [
        f"| `{one.name}` | {one.summary} ({one.source}) | `{one.architectures[0]}` | "
        f"`{one.normalize}` |"
        for one in PRESETS.values()
    ]

    assert "\n".join(rows) in text


def load(path: Path, preset: str, **options: Any) -> LoadedModel:
    return load_model(request_model(str(path), preset=preset, **options), CLASSES)


def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def published(forward: Callable[..., Tensor], state: State, constants: Any) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in constants)
    return forward(state, (images() - mean) / std)


def apart(model: LoadedModel, logits: Tensor) -> float:
    """Return the relative distance of the model's logits from other logits."""
    with torch.no_grad():
        return float((model.module(images()) - logits).abs().max() / logits.abs().max())


@pytest.mark.parametrize(
    "case", [*EVERY_DAY, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_a_preset_loads_its_files_into_the_published_network(case: str, tmp_path: Path) -> None:
    preset, make, layout, forward, constants = CASES[case]
    torch.save(layout(make()), tmp_path / "w.pt")
    loaded = load(tmp_path / "w.pt", preset)

    assert apart(loaded, published(forward, make(), constants)) < 1e-5
    assert (loaded.info.activation, loaded.info.assumed) == ("relu", "")


@pytest.mark.slow
def test_a_wrong_variant_or_normalisation_changes_the_logits(tmp_path: Path) -> None:
    torch.save(preact_state(), tmp_path / "w.pt")
    loaded = load(tmp_path / "w.pt", "wong")

    assert apart(loaded, published(activated, preact_state(), CIFAR)) > 1e-2
    assert apart(loaded, published(raw, preact_state(), NONE)) > 1e-2
    assert apart(loaded, published(raw, preact_state(), MADRY)) > 1e-3


def test_a_record_spells_out_the_architecture_of_a_preset(tmp_path: Path) -> None:
    torch.save(trades_state(), tmp_path / "w.pt")
    info = load(tmp_path / "w.pt", "trades(depth=10,widen=1)").info

    assert info.architecture == "wide-resnet(depth=10,widen=1,dropout=0,statistics=none)"


@pytest.mark.slow
def test_a_record_holds_the_unnamed_constants_of_madrys_file(tmp_path: Path) -> None:
    torch.save(madry(cifar_state()), tmp_path / "w.pt")
    info = load(tmp_path / "w.pt", "madry(depth=18)").info

    assert info.architecture == (
        "cifar-resnet(depth=18,statistics=cifar10) normalised by "
        "0.4914,0.4822,0.4465;0.2023,0.1994,0.201"
    )


def test_a_preset_can_be_combined_with_another_activation(tmp_path: Path) -> None:
    torch.save(trades_state(), tmp_path / "w.pt")
    loaded = load(tmp_path / "w.pt", "trades(depth=10,widen=1)", activation="silu")

    assert loaded.info.activation == "silu"
    assert apart(loaded, published(wide_resnet, trades_state(), NONE)) > 1e-2


def test_an_unknown_preset_is_refused_with_the_nearest(tmp_path: Path) -> None:
    torch.save(trades_state(), tmp_path / "w.pt")
    with pytest.raises(UnknownNameError, match=r"unknown preset 'tradse': did you mean 'trades'\?"):
        load(tmp_path / "w.pt", "tradse")


def test_a_setting_that_the_architecture_lacks_is_refused(tmp_path: Path) -> None:
    torch.save(trades_state(), tmp_path / "w.pt")
    with pytest.raises(SatbenchError, match=r"unknown parameter of wide-resnet 'width'"):
        load(tmp_path / "w.pt", "trades(width=2)")


def test_a_preset_together_with_an_architecture_is_refused(tmp_path: Path) -> None:
    torch.save(trades_state(), tmp_path / "w.pt")
    with pytest.raises(SatbenchError, match=r"give --preset or --arch"):
        request_model(str(tmp_path / "w.pt"), "wide-resnet", "relu", "trades")


def test_without_the_preset_the_extra_part_of_trades_is_named_with_advice(
    tmp_path: Path,
) -> None:
    torch.save(trades_state(), tmp_path / "w.pt")
    spec = "wide-resnet(depth=10,widen=1,statistics=none)"
    with pytest.raises(SatbenchError, match=r"--preset trades, or .* --drop-keys sub_block1$"):
        load_model(request_model(str(tmp_path / "w.pt"), spec, "relu"), CLASSES)
    dropped = load_model(
        request_model(str(tmp_path / "w.pt"), spec, "relu", drop_keys=["sub_block1"]), CLASSES
    )

    assert apart(dropped, published(wide_resnet, trades_state(), NONE)) < 1e-5


def test_one_of_two_sets_can_be_selected_with_a_preset(tmp_path: Path) -> None:
    averaged = {f"module.{name}": 2 * tensor for name, tensor in wide_state().items()}
    both = {"model": wide_state(), "model_ema": {**averaged, "n_averaged": torch.tensor(9)}}
    torch.save(both, tmp_path / "w.pt")
    text = f"{tmp_path / 'w.pt'}#model"
    loaded = load_model(request_model(text, preset="rice-wrn(depth=10,widen=1)"), CLASSES)

    assert apart(loaded, published(wide_resnet, wide_state(), CIFAR)) < 1e-5


def test_the_settings_of_a_preset_apply_to_every_form_of_its_architecture() -> None:
    assert find_preset("wong(depth=34)").architectures == (
        "preact-resnet(depth=34,shortcut=raw)",
        "preact-resnet(depth=34,shortcut=raw,final_norm=false)",
    )
