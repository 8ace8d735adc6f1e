"""Every architecture: its size, its layout, and the activation at every site."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from satbench.core.errors import SatbenchError
from satbench.core.specs import build, split_spec
from satbench.networks import ARCHITECTURES
from satbench.networks.build import build_network
from satbench.networks.efficientnet import EfficientNet
from satbench.networks.normalize import Normalize, normalize

# Spec, classes, (C, H, W) it is made for, parameters, activation sites.  Where a count is not ours
# to say: torchvision's documentation (ResNet, ResNeXt-50 32x4d and -101 32x8d, EfficientNet-B0…B7);
# He et al., 2016, arXiv:1512.03385, Table 6 (0.27 M, 0.46 M, 0.85 M, 1.7 M at 20, 32, 56, 110);
# 36.5 M, 46.2 M and 266.8 M for WRN-28-10, 34-10 and 70-16 (Zagoruyko & Komodakis, 2016,
# arXiv:1605.07146, Table 4; Gowal et al., 2020, arXiv:2010.03593); 11.17 M for the ResNets-18 with
# a 3×3 stem.  The others were counted here: ours, ResNeXt-50 32x8d and -152, EfficientNet-L1.
FULL_SIZE = [
    ("tiny", 10, (1, 28, 28), 15_682, 4),
    ("small", 10, (1, 28, 28), 272_442, 19),
    ("resnet(depth=18)", 1000, (3, 224, 224), 11_689_512, 17),
    ("resnet(depth=34)", 1000, (3, 224, 224), 21_797_672, 33),
    ("resnet(depth=50)", 1000, (3, 224, 224), 25_557_032, 49),
    ("resnet(depth=101)", 1000, (3, 224, 224), 44_549_160, 100),
    ("resnet(depth=152)", 1000, (3, 224, 224), 60_192_808, 151),
    ("resnext(depth=50,width=4)", 1000, (3, 224, 224), 25_028_904, 49),
    ("resnext(depth=50,width=8)", 1000, (3, 224, 224), 48_021_800, 49),
    ("resnext(depth=101,width=8)", 1000, (3, 224, 224), 88_791_336, 100),
    ("resnext(depth=152,width=4)", 1000, (3, 224, 224), 59_951_400, 151),
    ("resnext(depth=152,width=8)", 1000, (3, 224, 224), 122_372_392, 151),
    ("efficientnet(variant=b0)", 1000, (3, 224, 224), 5_288_548, 49),
    ("efficientnet(variant=b1)", 1000, (3, 240, 240), 7_794_184, 69),
    ("efficientnet(variant=b2)", 1000, (3, 260, 260), 9_109_994, 69),
    ("efficientnet(variant=b3)", 1000, (3, 300, 300), 12_233_232, 78),
    ("efficientnet(variant=b4)", 1000, (3, 380, 380), 19_341_616, 96),
    ("efficientnet(variant=b5)", 1000, (3, 456, 456), 30_389_784, 116),
    ("efficientnet(variant=b6)", 1000, (3, 528, 528), 43_040_704, 134),
    ("efficientnet(variant=b7)", 1000, (3, 600, 600), 66_347_960, 163),
    ("efficientnet(variant=l1)", 1000, (3, 600, 600), 272_630_564, 187),
    ("cifar-resnet(depth=18)", 10, (3, 32, 32), 11_173_962, 17),
    ("cifar-resnet(depth=34)", 10, (3, 32, 32), 21_282_122, 33),
    ("cifar-resnet(depth=50)", 10, (3, 32, 32), 23_520_842, 49),
    ("he-cifar-resnet(depth=20)", 10, (3, 32, 32), 269_722, 19),
    ("he-cifar-resnet(depth=32)", 10, (3, 32, 32), 464_154, 31),
    ("he-cifar-resnet(depth=56)", 10, (3, 32, 32), 853_018, 55),
    ("he-cifar-resnet(depth=110)", 10, (3, 32, 32), 1_727_962, 109),
    ("preact-resnet(depth=18)", 10, (3, 32, 32), 11_172_170, 17),
    ("preact-resnet(shortcut=raw,final_norm=false)", 10, (3, 32, 32), 11_171_146, 16),
    ("wide-resnet(depth=28,widen=10)", 10, (3, 32, 32), 36_479_194, 25),
    ("wide-resnet(depth=34,widen=10)", 10, (3, 32, 32), 46_160_474, 31),
    ("wide-resnet(depth=70,widen=16)", 10, (3, 32, 32), 266_796_506, 67),
]
SPECS = [row[0] for row in FULL_SIZE]
EVERY_DAY = {
    *("tiny", "small", "resnet(depth=18)", "resnet(depth=50)", "resnext(depth=50,width=4)"),
    *("efficientnet(variant=b0)", "cifar-resnet(depth=18)", "he-cifar-resnet(depth=20)"),
    *("preact-resnet(depth=18)", "wide-resnet(depth=28,widen=10)"),
}

# One of each layout, as small as it gets, and the channels it takes.
SAMPLES = [
    ("tiny(width=2)", 1),
    ("small(width=2,blocks=2)", 1),
    ("resnet(depth=18)", 3),
    ("resnext(depth=50,groups=2,width=4)", 3),
    ("efficientnet(variant=b0)", 3),
    ("cifar-resnet(depth=18)", 3),
    ("he-cifar-resnet(depth=14)", 3),
    ("preact-resnet(depth=18)", 3),
    ("wide-resnet(depth=10,widen=1)", 3),
]


def channels_of(name: str) -> int:
    """Return the channels of an architecture's images, by its first convolution."""
    with torch.device("meta"):
        net = build_network(name, "relu", 10)
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    return first.in_channels if isinstance(first, nn.Conv2d) else 1


# An architecture without a line above is tested as it is by default.
SAMPLES += [
    (name, channels_of(name))
    for name in ARCHITECTURES.names()
    if name not in {split_spec(spec)[0] for spec, _ in SAMPLES}
]

# Where weights are drawn, which takes time for the larger ones, some wait for the slow tests.
DRAWN = [
    pytest.param(
        *(spec, channels),
        marks=pytest.mark.slow if spec.startswith(("resnext", "cifar", "preact")) else [],
    )
    for spec, channels in SAMPLES
]

# What a network could bend its values with, as torch names it.
BENDING = {
    *("relu", "relu_", "relu6", "leaky_relu", "threshold", "hardtanh", "prelu", "rrelu", "glu"),
    *("silu", "gelu", "elu", "celu", "selu", "mish", "softplus", "hardswish", "hardsigmoid"),
    *("sigmoid", "tanh", "atan", "exp", "log", "clamp", "clamp_min", "maximum", "where", "abs"),
}

Arrays = dict[str, Tensor]


class Arctan(nn.Module):
    """An activation that no architecture has of itself, and that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def forward(self, x: Tensor) -> Tensor:
        self.times += 1
        return torch.atan(x)


class Called(TorchFunctionMode):
    """Counts the functions of torch that are called, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self.names[getattr(func, "__name__", "")] += 1
        return func(*args, **(kwargs or {}))


def make(spec: str, activation: Callable[[], nn.Module], classes: int = 10) -> nn.Module:
    """Build an architecture with any maker of modules, registered or not."""
    name, arguments = split_spec(spec)
    return build(ARCHITECTURES[name].load(), name, arguments)(activation, classes)  # type: ignore[arg-type,operator,no-any-return]


def seeded(spec: str, activation: str, classes: int = 10) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network(spec, activation, classes)


def images(channels: int, size: int, batch: int = 2) -> Tensor:
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(1))


def shake(net: nn.Module) -> None:
    """Draw every scale, shift and statistic again, so that no two norms are equal."""
    generator = torch.Generator().manual_seed(2)
    for tensor in net.state_dict().values():
        if tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5, generator=generator)


def answers(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = net.eval()(x)
    return logits


# Size


@pytest.mark.parametrize(
    ("spec", "classes", "parameters", "sites"),
    [
        pytest.param(
            *(spec, classes, parameters, sites),
            id=spec,
            marks=[] if spec in EVERY_DAY else pytest.mark.slow,
        )
        for spec, classes, _, parameters, sites in FULL_SIZE
    ],
)
def test_an_architecture_has_the_published_number_of_parameters(
    spec: str, classes: int, parameters: int, sites: int
) -> None:
    with torch.device("meta"):
        net = make(spec, Arctan, classes)

    assert sum(p.numel() for p in net.parameters()) == parameters
    assert sum(isinstance(module, Arctan) for module in net.modules()) == sites


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "classes", "shape"), [row[:3] for row in FULL_SIZE], ids=SPECS)
def test_forward_and_backward_at_the_true_size_are_finite(
    spec: str, classes: int, shape: tuple[int, ...]
) -> None:
    net = seeded(spec, "silu", classes)
    x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(1)).requires_grad_()

    with torch.random.fork_rng():
        logits = net.train()(x)
    F.cross_entropy(logits, torch.tensor([3])).backward()  # type: ignore[no-untyped-call]

    assert logits.shape == (1, classes)
    assert logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert x.grad is not None
    assert 0 < x.grad.abs().max() < torch.inf


@pytest.mark.parametrize(("spec", "channels"), DRAWN)
def test_forward_and_backward_reach_every_weight(spec: str, channels: int) -> None:
    net = seeded(spec, "silu", classes=7)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # a γ of 0 holds back the gradient of what is before it

    with torch.random.fork_rng():
        torch.manual_seed(0)
        logits = net.train()(images(channels, 16))
    logits.square().sum().backward()

    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    grads = [p.grad for p in net.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)


# Activations


@pytest.mark.parametrize(("spec", "channels"), SAMPLES)
def test_each_site_bends_once_and_nothing_else_does(spec: str, channels: int) -> None:
    with torch.device("meta"):
        net = make(spec, Arctan).eval()
        sites = [module for module in net.modules() if isinstance(module, Arctan)]
        gates = [module for module in net.modules() if isinstance(module, nn.Sigmoid)]
        with Called() as called:
            net(torch.empty(2, channels, 32, 32))

    assert {1} == {site.times for site in sites}
    bent = {name: times for name, times in called.names.items() if name in BENDING}
    expected = {"atan": len(sites), "sigmoid": len(gates)}
    assert {name: times for name, times in expected.items() if times} == bent


def test_no_relu_is_left_in_a_net_of_another_activation() -> None:
    with torch.device("meta"):
        nets = [build_network(spec, "silu", 10) for spec, _ in SAMPLES]

    assert not [module for net in nets for module in net.modules() if isinstance(module, nn.ReLU)]


def test_no_silu_is_left_in_an_efficientnet_of_relu_and_its_gates_stay() -> None:
    with torch.device("meta"):
        kinds = Counter(type(module) for module in make("efficientnet", nn.ReLU).modules())

    assert (0, 49, 16) == (kinds[nn.SiLU], kinds[nn.ReLU], kinds[nn.Sigmoid])


@pytest.mark.parametrize(("spec", "channels"), DRAWN)
def test_initial_weights_do_not_depend_on_the_activation(spec: str, channels: int) -> None:
    relu, smooth = seeded(spec, "relu").state_dict(), seeded(spec, "smooth-relu").state_dict()

    assert relu.keys() < smooth.keys()  # the second has weights of its own
    assert all(torch.equal(tensor, smooth[name]) for name, tensor in relu.items())


def test_the_first_weights_follow_the_seed() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        other = build_network("small", "relu", 10).state_dict()["1.weight"]

    assert not torch.equal(seeded("small", "relu").state_dict()["1.weight"], other)


def test_an_activation_with_a_weight_has_one_at_each_site() -> None:
    with torch.device("meta"):
        smooth = build_network("resnet(depth=50)", "smooth-relu", 1000)

    assert 25_557_032 + 49 == sum(p.numel() for p in smooth.parameters())


# Layout


@pytest.mark.parametrize(
    "spec", ["small", "resnet(depth=18)", pytest.param("resnet(depth=50)", marks=pytest.mark.slow)]
)
def test_the_last_gamma_of_a_block_starts_at_0_and_every_other_at_1(spec: str) -> None:
    net = seeded(spec, "relu")
    last = "bn3.weight" if "50" in spec else "bn2.weight"

    for name, parameter in net.named_parameters():
        if parameter.dim() == 1 and name.endswith("weight"):
            assert (0 if name.endswith(last) else 1) == parameter.unique().item()


def test_the_last_layer_of_a_resnet_starts_small() -> None:
    fc = seeded("resnet(depth=18)", "relu", classes=1000).fc

    assert isinstance(fc, nn.Linear)
    assert fc.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert fc.bias.abs().max().item() == 0


@pytest.mark.parametrize(
    "spec", ["resnet(depth=50)", "resnext(depth=50)", "cifar-resnet(depth=50)"]
)
def test_a_bottleneck_strides_in_its_3x3_convolution(spec: str) -> None:
    with torch.device("meta"):
        convolutions = {
            name: module
            for name, module in make(spec, nn.ReLU).named_modules()
            if isinstance(module, nn.Conv2d) and name.startswith("layer")
        }

    strided = {name for name, module in convolutions.items() if module.stride == (2, 2)}
    shortcut = "shortcut" if "cifar" in spec else "downsample"
    assert strided == {
        f"layer{number}.0.{part}" for number in (2, 3, 4) for part in ("conv2", f"{shortcut}.0")
    }


@pytest.mark.parametrize(
    "variant", ["b0", *(pytest.param(name, marks=pytest.mark.slow) for name in ("b5", "l1"))]
)
def test_an_efficientnet_has_the_batch_norm_dropout_and_drop_path_of_the_sat_code(
    variant: str,
) -> None:
    with torch.device("meta"):
        net = make(f"efficientnet(variant={variant})", nn.SiLU)

    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(0.1, 1e-5)} == {(norm.momentum, norm.eps) for norm in norms}
    (dropout,) = (module.p for module in net.modules() if isinstance(module, nn.Dropout))
    assert {"b0": 0.2, "b5": 0.4, "l1": 0.5}[variant] == dropout
    paths = [
        module.p for module in net.modules() if isinstance(module, torchvision.ops.StochasticDepth)
    ]
    assert paths == pytest.approx([0.2 * block / len(paths) for block in range(len(paths))])


def test_an_efficientnet_is_tested_at_its_own_resolution() -> None:
    tested = {spec: shape[1:] for spec, _, shape, _, _ in FULL_SIZE if "efficientnet" in spec}
    own = {spec: build(EfficientNet, *split_spec(spec)).resolution for spec in tested}

    assert tested == {spec: (pixels, pixels) for spec, pixels in own.items()}


# Normalisation


@pytest.mark.parametrize(("spec", "channels"), SAMPLES)
def test_normalisation_comes_first_and_is_saved(spec: str, channels: int) -> None:
    with torch.device("meta"):
        net = build_network(spec, "relu", 10).eval()
    called: list[nn.Module] = []
    given: list[Tensor] = []
    for module in net.modules():
        if not list(module.children()):
            module.register_forward_pre_hook(
                lambda module, args: (called.append(module), given.append(args[0]), None)[2]
            )
    x = torch.empty(2, channels, 32, 32, device="meta")
    answers(net, x)

    assert isinstance(called[0], Normalize)
    assert given[0] is x
    assert 1 == sum(isinstance(module, Normalize) for module in called)
    prefix = "0" if channels == 1 else "normalize"
    assert {f"{prefix}.mean", f"{prefix}.std"} <= net.state_dict().keys()


@pytest.mark.parametrize(
    ("statistics", "black", "white"),
    [
        ("sat", [-1, -1, -1], [1, 1, 1]),
        ("none", [0, 0, 0], [1, 1, 1]),
        ("imagenet", [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], None),
        ("cifar10", [-0.4914 / 0.2471, -0.4822 / 0.2435, -0.4465 / 0.2616], None),
        ("cifar100", [-0.5071 / 0.2673, -0.4865 / 0.2564, -0.4409 / 0.2762], None),
    ],
)
def test_the_statistics_are_those_named(
    statistics: str, black: list[float], white: list[float] | None
) -> None:
    layer = normalize(statistics)

    got = layer(torch.zeros(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(got, torch.tensor(black, dtype=torch.float32))
    if white is not None:
        got = layer(torch.ones(1, 3, 1, 1)).flatten()
        torch.testing.assert_close(got, torch.tensor(white, dtype=torch.float32))


def test_a_model_normalises_by_the_statistics_of_its_spec() -> None:
    raw = seeded("wide-resnet(depth=10,widen=1,statistics=none)", "relu")
    own = seeded("wide-resnet(depth=10,widen=1)", "relu")
    x = images(3, 32)

    assert torch.equal(answers(own, x), answers(raw, normalize("cifar10")(x)))


@pytest.mark.parametrize(("spec", "channels"), SAMPLES)
def test_images_with_the_wrong_number_of_channels_are_refused(spec: str, channels: int) -> None:
    with torch.device("meta"):
        net, wrong = build_network(spec, "relu", 10).eval(), torch.empty(2, 4 - channels, 32, 32)

    with pytest.raises(SatbenchError, match=rf"expected images of shape \(N, {channels}, H, W\)"):
        net(wrong)


def test_a_traced_normalisation_still_refuses_other_images() -> None:
    traced = fx.symbolic_trace(normalize("sat"))

    assert torch.equal(traced(torch.ones(1, 3, 2, 2)), torch.ones(1, 3, 2, 2))
    with pytest.raises(SatbenchError, match="got shape"):
        traced(torch.ones(1, 1, 2, 2))


# The same networks by other hands


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("spec", "factory", "activation"),
    [
        ("resnet(depth=50,statistics=imagenet)", "resnet50", "relu"),
        ("efficientnet(variant=b0,statistics=imagenet)", "efficientnet_b0", "silu"),
        pytest.param(
            "resnet(depth=18,statistics=imagenet)", "resnet18", "relu", marks=pytest.mark.slow
        ),
        pytest.param(
            "resnext(depth=50,statistics=imagenet)",
            "resnext50_32x4d",
            "relu",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "resnext(depth=101,width=8,statistics=imagenet)",
            "resnext101_32x8d",
            "relu",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "efficientnet(variant=b3,statistics=imagenet)",
            "efficientnet_b3",
            "silu",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_weights_of_torchvision_load_and_answer_as_there(
    spec: str, factory: str, activation: str
) -> None:
    theirs = getattr(torchvision.models, factory)(weights=None)
    shake(theirs)
    ours = seeded(spec, activation, classes=1000)
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    x = images(3, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    assert ({"normalize.mean", "normalize.std"}, []) == (set(missing), unexpected)
    expected = answers(theirs, (x - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    assert torch.equal(expected, answers(ours, x))


def norm(w: Arrays, name: str, x: Tensor) -> Tensor:
    mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, w[f"{name}.weight"], w[f"{name}.bias"])


def wide_resnet_by_the_paper(w: Arrays, x: Tensor, blocks: int) -> Tensor:
    """BN-ReLU-conv twice, added to the shortcut (Zagoruyko & Komodakis, Figure 1 and Table 1)."""
    x = F.conv2d(2 * x - 1, w["conv1.weight"], padding=1)
    for number in (1, 2, 3):
        for block in range(blocks):
            at = f"block{number}.layer.{block}"
            stride = 2 if number > 1 and block == 0 else 1
            active = F.relu(norm(w, f"{at}.bn1", x))
            out = F.conv2d(active, w[f"{at}.conv1.weight"], stride=stride, padding=1)
            out = F.conv2d(F.relu(norm(w, f"{at}.bn2", out)), w[f"{at}.conv2.weight"], padding=1)
            if block == 0:
                x = F.conv2d(active, w[f"{at}.convShortcut.weight"], stride=stride)
            x = out + x
    pooled = F.relu(norm(w, "bn1", x)).mean((2, 3))
    return F.linear(pooled, w["fc.weight"], w["fc.bias"])


def test_a_wide_resnet_is_the_one_of_the_paper() -> None:
    net = seeded("wide-resnet(depth=16,widen=2,statistics=sat)", "relu")
    shake(net)
    x = images(3, 32)

    expected = wide_resnet_by_the_paper(net.state_dict(), x, blocks=2)
    torch.testing.assert_close(answers(net, x), expected, rtol=1e-4, atol=1e-4)


def he_resnet_by_the_paper(w: Arrays, x: Tensor, blocks: int) -> Tensor:
    """Three stages at 32, 16 and 8 pixels, shortcuts of option A (He et al., section 4.2)."""
    x = F.relu(norm(w, "bn1", F.conv2d(2 * x - 1, w["conv1.weight"], padding=1)))
    for number in (1, 2, 3):
        for block in range(blocks):
            at = f"layer{number}.{block}"
            stride = 2 if number > 1 and block == 0 else 1
            out = F.conv2d(x, w[f"{at}.conv1.weight"], stride=stride, padding=1)
            out = F.conv2d(F.relu(norm(w, f"{at}.bn1", out)), w[f"{at}.conv2.weight"], padding=1)
            if stride == 2:
                half = torch.zeros_like(x[:, ::2, ::2, ::2])
                x = torch.cat([half, x[:, :, ::2, ::2], half], 1)
            x = F.relu(norm(w, f"{at}.bn2", out) + x)
    return F.linear(x.mean((2, 3)), w["linear.weight"], w["linear.bias"])


def test_a_resnet_of_6n_plus_2_layers_is_the_one_of_the_paper() -> None:
    net = seeded("he-cifar-resnet(depth=14,statistics=sat)", "relu")
    shake(net)
    x = images(3, 32)

    expected = he_resnet_by_the_paper(net.state_dict(), x, blocks=2)
    torch.testing.assert_close(answers(net, x), expected, rtol=1e-4, atol=1e-4)


def robustbench_module(name: str) -> ModuleType:
    """Load one file of RobustBench's architectures, which needs nothing but torch."""
    package = importlib.util.find_spec("robustbench")
    if package is None or package.origin is None:
        pytest.skip("robustbench is not installed")
    path = Path(package.origin).parent / "model_zoo" / "architectures" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"their_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("spec", "file", "make_theirs"),
    [
        (
            "wide-resnet(depth=16,widen=2,statistics=none)",
            "wide_resnet",
            lambda m: m.WideResNet(depth=16, widen_factor=2),
        ),
        (
            "preact-resnet(statistics=none)",
            "resnet",
            lambda m: m.PreActResNet(m.PreActBlockV2, [2, 2, 2, 2], bn_before_fc=True),
        ),
        pytest.param(
            "preact-resnet(shortcut=raw,final_norm=false,statistics=none)",
            "resnet",
            lambda m: m.PreActResNet(m.PreActBlock, [2, 2, 2, 2]),
            marks=pytest.mark.slow,
        ),
        ("cifar-resnet(statistics=none)", "resnet", lambda m: m.ResNet18()),
        pytest.param(
            *("cifar-resnet(depth=50,statistics=none)", "resnet", lambda m: m.ResNet50()),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_weights_of_robustbench_load_and_answer_as_there(
    spec: str, file: str, make_theirs: Callable[[ModuleType], nn.Module]
) -> None:
    with torch.random.fork_rng():
        theirs = make_theirs(robustbench_module(file))
    shake(theirs)
    ours = seeded(spec, "relu")
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    x = images(3, 32)

    assert ({"normalize.mean", "normalize.std"}, []) == (set(missing), unexpected)
    torch.testing.assert_close(answers(ours, x), answers(theirs, x), rtol=1e-4, atol=1e-4)


# What is refused


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("small(width=0)", "small: expected width of 1 or more, got 0"),
        ("small(blocks=0)", "small: expected blocks of 1 or more, got 0"),
        ("resnet(depth=20)", "resnet: expected a depth of 18, 34, 50, 101, 152, got 20"),
        ("resnext(depth=18)", "resnext: expected a depth of 50, 101, 152, got 18"),
        ("resnext(groups=0)", "resnext: expected groups of 1 or more, got 0"),
        ("efficientnet(variant=b8)", "expected one of b0, b1, b2, b3, b4, b5, b6, b7, l1"),
        ("cifar-resnet(depth=20)", "18, 34 or 50, got 20; 20, 32, 44, 56 and 110 are of he-"),
        ("he-cifar-resnet(depth=18)", "expected a depth of 6n + 2 such as 20, 32 or 56, got 18"),
        ("preact-resnet(depth=50)", "expected a depth of 18 or 34, got 50"),
        ("wide-resnet(depth=30)", "a depth of 6n + 4 such as 28, 34 or 70, got 30"),
        ("wide-resnet(widen=0)", "expected widen of 1 or more, got 0"),
        ("wide-resnet(dropout=1)", r"expected dropout in \[0, 1\), got 1"),
        ("resnet(statistics=mnist)", "expected one of imagenet, cifar10, cifar100, sat, none"),
    ],
)
def test_a_size_that_does_not_exist_is_refused(spec: str, said: str) -> None:
    with pytest.raises(SatbenchError, match=said.replace("+", r"\+")):
        build_network(spec, "relu", 10)


def test_images_whose_channels_come_last_are_refused_with_the_remedy() -> None:
    network = build_network("tiny", "relu", 10)
    with pytest.raises(SatbenchError, match=r"write x\.permute\(0, 3, 1, 2\)$"):
        network(torch.rand(2, 28, 28, 1))
