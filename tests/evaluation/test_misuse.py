"""Misuse that other libraries accept silently, or that damages the caller's model in them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

import satbench
from satbench.core.errors import SatbenchError
from satbench.recipes import load_recipe

PGD = "pgd(steps=5,start=clean)"
RIGHT = [0, 1, 1, -1, -1]  # at eps 0.1; the distances to the boundary are |mean - 1/2|
MEANS = torch.tensor([0.49, 0.51, 0.55, 0.61, 0.7])


def images() -> Tensor:
    return MEANS.view(-1, 1, 1, 1).repeat(1, 1, 2, 2)


def labels() -> Tensor:
    return torch.ones(len(RIGHT), dtype=torch.int64)


class Fragile(nn.Module):
    """Two classes by the mean pixel, with all state that careless use of a model can damage.

    Logits (-s, s), s = mean - 1/2; in train mode the batch norm and the dropout would spoil them.
    """

    def __init__(
        self,
        after: Callable[[Tensor], Any] = lambda logits: logits,
        before: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, eps=0)
        self.dropout = nn.Dropout(0.5)
        self.shift = nn.Parameter(torch.tensor(0.5), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(()))
        self.scale.grad = torch.tensor(7.0)
        self.after, self.before = after, before
        self.norm.register_forward_hook(lambda *_: None)
        self.dropout.register_full_backward_hook(lambda *_: None)
        self.train()
        self.dropout.eval()

    def forward(self, x: Tensor) -> Any:
        pixels = self.dropout(self.norm(self.before(x)))
        score = self.scale * (pixels.flatten(1).mean(1) - self.shift)
        return self.after(torch.stack([-score, score], 1))


def contents(tensor: Tensor | None) -> object:
    empty = tensor is None or is_lazy(tensor) or tensor.is_meta
    if empty:
        return None
    dense = tensor.detach().to_dense()
    return (dense.float() if dense.dtype == torch.bfloat16 else dense).numpy().tobytes()


def traces(model: nn.Module) -> dict[str, object]:
    """Return all that must be unchanged: values, identities, modes, hooks."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    tensors = (*model.parameters(), *model.buffers())
    return {
        "values": [contents(tensor) for tensor in tensors],
        "tensors": [(id(tensor), tensor.device) for tensor in tensors],
        "modes": [module.training for module in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grads": [(id(p.grad), contents(p.grad)) for p in model.parameters()],
        "hooks": [dict(getattr(module, name)) for module in model.modules() for name in hooks],
    }


def generators() -> list[object]:
    numpy_state = np.random.get_state()
    return [torch.get_rng_state().tolist(), random.getstate(), str(numpy_state)]


def fingerprint(thing: object) -> object:
    """Return everything in an argument that a careless function could change."""
    if not isinstance(thing, Tensor):
        return repr(thing)
    return contents(thing), thing.requires_grad, contents(thing.grad), thing.device, thing._version


@dataclass
class Case:
    """A call, and either its error or its correct verdicts."""

    name: str
    said: str = ""
    model: Callable[[], Any] = Fragile
    x: Callable[[], Any] = images
    y: Callable[[], Any] = labels
    attacks: tuple[str, ...] = (PGD,)
    inside: Callable[[], AbstractContextManager[Any]] = nullcontext
    changes: dict[str, Any] = field(default_factory=dict)
    verdicts: list[int] = field(default_factory=lambda: RIGHT)


def train_everything() -> nn.Module:
    return Fragile().train()


def nan_where(low: float, high: float) -> Callable[[], nn.Module]:
    """Return a function that makes a model whose logits are NaN between two numbers."""

    def spoil(logits: Tensor) -> Tensor:
        score = logits[:, 1:]
        return torch.where((low < score) & (score < high), torch.nan, logits)

    return lambda: Fragile(spoil)


def exported() -> torch.export.ExportedProgram:
    return torch.export.export(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (images(),))


def after(change: Callable[[Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: Fragile(change)


def before(change: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Fragile(before=change)


def changed_images(change: Callable[[Tensor], Any]) -> Callable[[], Any]:
    return lambda: change(images())


def changed_labels(change: Callable[[Tensor], Any]) -> Callable[[], Any]:
    return lambda: change(labels())


def with_pixel(value: float) -> Callable[[], Tensor]:
    return changed_images(lambda x: x.index_fill(0, torch.tensor([3]), value))


def read_only() -> Any:
    array = images().numpy()
    array.flags.writeable = False
    return array


class Closed(Fragile):
    def forward(self, x: Tensor) -> Any:
        with torch.no_grad():
            return super().forward(x)


class Counting(Fragile):
    """A model that writes into a buffer, also in eval mode."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        self.count += len(x)
        return super().forward(x)


def partly_on_meta() -> nn.Module:
    model = Fragile()
    model.shift = nn.Parameter(torch.empty((), device="meta"), requires_grad=False)
    return model


def lazy() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))


@contextmanager
def float64_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def with_masked_class(logits: Tensor) -> Tensor:
    return torch.cat([logits, logits.new_full((len(logits), 1), -torch.inf)], 1)


class Draws(Fragile):
    """A model that draws from the generators of NumPy and Python."""

    def forward(self, x: Tensor) -> Any:
        noise = 1e-5 * (np.random.standard_normal() + random.gauss(0, 1))
        return super().forward(x) + noise * torch.tensor([1.0, -1.0])


class Coarse(Fragile):
    """A model whose weights and passes are in a lower precision."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.coarse = nn.Linear(1, 1, bias=False).to(dtype).requires_grad_(False)
        self.coarse.weight.fill_(1)

    def forward(self, x: Tensor) -> Any:
        mean = x.flatten(1).mean(1, keepdim=True).to(self.coarse.weight.dtype)
        score = self.coarse(mean) - 0.5
        return torch.cat([-score, score], 1)


def in_place() -> nn.Module:
    return nn.Sequential(nn.ReLU(inplace=True), Fragile())


SQUARE = (PGD, "square(queries=100)")
BY_SQUARE = [0, 2, 2, -1, -1]
NOT_FINITE = r"^expected finite logits, got NaN or infinity for "

CASES = [
    # Correct verdicts, and no damage
    Case("correct use"),
    Case("model in train mode", model=train_everything),
    Case("model that counts in a buffer", model=Counting),
    Case("images that require grad", x=changed_images(lambda x: x.requires_grad_())),
    Case("read-only array", x=read_only, y=changed_labels(lambda y: y.numpy())),
    Case("under no_grad", inside=torch.no_grad),
    Case("under autocast", inside=lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
    Case("float64 by default", inside=float64_by_default, attacks=(PGD, "apgd-ce(steps=5)")),
    Case("another default device", inside=lambda: torch.device("meta")),
    Case("in-place first layer", model=in_place, attacks=(PGD, "square(queries=5)")),
    Case("in-place clamp", model=before(lambda x: x.clamp_(0, 1))),
    Case("float16 within", model=lambda: Coarse(torch.float16)),
    Case("bfloat16 within", model=lambda: Coarse(torch.bfloat16)),
    Case("model that draws from NumPy and Python", model=Draws, changes={"eps": "0.09"}),
    Case("negative seed", changes={"seed": -1}),
    Case(
        "seed beyond 64 bits",
        r"^expected a seed of at most 64 bits, got one of 71: ",
        changes={"seed": 2**70},
    ),
    Case("softmax outputs", model=after(lambda z: z.softmax(1))),
    Case(
        "random model",
        model=after(lambda z: z + 1e-4 * torch.randn_like(z)),
        changes={"eps": "0.09"},  # at 0.1 an iterate lies on the boundary, and noise decides
    ),
    Case(
        "saturated softmax",
        model=after(lambda z: (1e4 * z).softmax(1)),
        attacks=SQUARE,
        verdicts=BY_SQUARE,
    ),
    Case(
        "quantised input",
        model=before(lambda x: (100 * x).round() / 100),
        attacks=SQUARE,
        verdicts=BY_SQUARE,
    ),
    # The images
    Case(
        "pixels of 0 to 255",
        r"^expected pixels in \[0, 1\], got 124.9.* to 178.5.*: divide them by 255$",
        x=changed_images(lambda x: 255 * x),
    ),
    Case(
        "normalised images",
        r"^expected pixels in \[0, 1\], got -0\..*: .* first layer of the model",
        x=changed_images(lambda x: (x - 0.5) / 0.25),
    ),
    Case("NaN pixel", r"^expected finite pixels, .*image 3\): repair", x=with_pixel(torch.nan)),
    Case("infinite pixel", r"^expected finite pixels, .*image 3\): ", x=with_pixel(torch.inf)),
    Case("float64 images", r"got float64: .* x\.float\(\)$", x=changed_images(Tensor.double)),
    Case("half images", r"got float16: .* x\.float\(\)$", x=changed_images(Tensor.half)),
    Case(
        "uint8 images of 0 and 1",
        r"^expected uint8 pixels of 0 to 255, got 0 to 1: write x\.float\(\)",
        x=changed_images(lambda x: (x > 0.5).byte()),
    ),
    Case("uint8 images", x=changed_images(lambda x: (255 * x).round().byte())),
    Case(
        "empty batch",
        r"^expected at least one image, got an empty set",
        x=lambda: images()[:0],
        y=lambda: labels()[:0],
    ),
    Case(
        "images without channel",
        r"^expected images of shape \(N, C, H, W\), got shape "
        r"\(5, 2, 2\): a grey image has C = 1",
        x=changed_images(lambda x: x[:, 0]),
    ),
    Case(
        "channels last",
        r"^the model fails on 5 images of shape \(2, 2, 1\) .* last, write x\.permute\(0, 3",
        x=changed_images(lambda x: x.permute(0, 2, 3, 1)),
    ),
    Case(
        "list of images of two shapes",
        r"^expected images of one shape, got \(1, 2, 2\) and \(1, 3, 3\): resize them$",
        x=lambda: [torch.zeros(1, 2, 2), torch.zeros(1, 3, 3)],
    ),
    Case("list of images", x=changed_images(list)),
    Case("list of labels", y=lambda: labels().tolist()),
    Case(
        "list of texts",
        r"^expected a list of tensors or arrays \(C, H, W\), got one with str: ",
        x=lambda: ["a.png", "b.png"],
    ),
    Case(
        "sparse images",
        r"^expected dense images, got .*sparse.*: .*to_dense\(\)$",
        x=changed_images(Tensor.to_sparse),
    ),
    Case(
        "images with a mask",
        r"^expected images without a mask, got .* \d+ elements masked: fill them, x\.filled\(\)$",
        x=changed_images(lambda x: np.ma.masked_greater_equal(x.numpy(), x.max().item())),
    ),
    Case(
        "labels with a mask",
        r"^expected labels without a mask, got a masked array",
        y=changed_labels(lambda y: np.ma.masked_equal(y.numpy(), 1)),
    ),
    Case(
        "images in a masked array without a mask",
        x=changed_images(lambda x: np.ma.masked_array(x.numpy())),
    ),
    Case(
        "images on the meta device",
        r"^expected images with contents, got .* meta device: ",
        x=changed_images(lambda x: x.to("meta")),
    ),
    # The labels
    Case(
        "int32 labels",
        r"^expected int64 labels, got int32: .* y\.long\(\)$",
        y=changed_labels(Tensor.int),
    ),
    Case(
        "float labels",
        r"^expected int64 labels, got float32: .* y\.long\(\)$",
        y=changed_labels(Tensor.float),
    ),
    Case(
        "one-hot labels",
        r"^expected labels of shape \(N,\), .* y\.argmax\(1\)$",
        y=changed_labels(lambda y: nn.functional.one_hot(y, 2)),
    ),
    Case(
        "label 2 of 2 classes",
        r"^expected at least 3 logits per image, got 2: labels go up to 2",
        y=changed_labels(lambda y: y + torch.arange(5) // 4),
    ),
    Case(
        "label -1",
        r"^expected labels that start from 0, got -1: leave such images out$",
        y=changed_labels(lambda y: y - 2 * (torch.arange(5) // 4)),
    ),
    Case(
        "fewer labels than images",
        r"^expected one label per image, got 5 images and 4 labels",
        y=changed_labels(lambda y: y[:4]),
    ),
    Case(
        "more labels than images",
        r"^expected one label per image, got 5 images and 6 labels",
        y=lambda: torch.ones(6, dtype=torch.int64),
    ),
    Case(
        "no labels", r"^expected images x and labels y, or the name of a data set", y=lambda: None
    ),
    Case(
        "labels on the meta device",
        r"^expected labels with contents, got .* meta device: ",
        y=changed_labels(lambda y: y.to("meta")),
    ),
    # The model
    Case(
        "NaN logits on a quarter",
        NOT_FINITE + r"1 of 5 images \(the first is image 1\)",
        model=nan_where(0.005, 0.015),
    ),
    Case("NaN logits everywhere", NOT_FINITE + r"5 of 5 images", model=nan_where(-1, 1)),
    Case(
        "NaN logits on a later image",
        NOT_FINITE + r"1 of 28 images \(the first is row 27 .*\(image 59, under no attack\)",
        model=nan_where(0.1, 0.3),
        x=lambda: images()[[1] * 59 + [4]],
        y=lambda: torch.ones(60, dtype=torch.int64),
    ),
    Case(
        "NaN logits on adversarial images",
        NOT_FINITE + r".* \(image 1, under pgd",
        model=nan_where(-9, -0.015),
    ),
    Case("infinite logits", NOT_FINITE + "5 of 5", model=after(lambda z: z / 0)),
    Case(
        "detached logits",
        r"^no gradient reaches the pixels .* remove detach\(\) and no_grad\(\)",
        model=after(lambda z: z.detach()),
    ),
    Case("no_grad in the forward", r"^no gradient reaches the pixels", model=Closed),
    Case("tuple output", model=after(lambda z: (z, None))),
    Case("dict output", model=after(lambda z: {"logits": z})),
    Case("output with an attribute", model=after(lambda z: SimpleNamespace(logits=z))),
    Case(
        "two tensors of output",
        r"^expected the model to return one tensor of logits, got tuple with 2 that could",
        model=after(lambda z: (z, z)),
    ),
    Case("squeezed output", model=after(torch.squeeze)),
    Case("sparse output", model=after(Tensor.to_sparse)),
    Case(
        "logits as large as masks",
        r"^expected logits of at most 1e\+09, got .*: .* divide them by a constant",
        model=after(lambda z: 1e13 * z),
    ),
    Case("a masked class", model=after(with_masked_class)),
    Case(
        "one logit",
        r"^expected one logit per class, got a single logit: .* two, torch\.cat",
        model=after(lambda z: z[:, :1]),
        y=changed_labels(lambda y: 0 * y),
    ),
    Case(
        "labels instead of logits",
        r"^expected logits of shape \(5, classes\) .* \(5,\): ",
        model=after(lambda z: z.argmax(1)),
    ),
    Case(
        "model that writes into the images",
        r"^expected the model not to change its input",
        model=before(lambda x: x.mul_(0.5)),
    ),
    Case(
        "model in float64",
        r"^the model fails on 5 images .* in float32 on cpu: .* float64: .* model\.float\(\)$",
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double(),
    ),
    Case(
        "number as the model",
        r"^expected the model as a torch.nn.Module, a function or a name, got int$",
        model=lambda: 5,
    ),
    Case(
        "class as the model",
        r"^expected the model as .*, got the class Fragile itself: make one, Fragile\(\)$",
        model=lambda: Fragile,
    ),
    Case(
        "exported program as the model",
        r"^expected the model as .*, got ExportedProgram: pass model\.module\(\)$",
        model=exported,
    ),
    Case(
        "model on the meta device",
        r"^expected a model with weights, got shift on the meta device: build it on a real device",
        model=lambda: Fragile().to("meta"),
    ),
    Case(
        "model partly on the meta device",
        r"^expected a model with weights, got shift on the meta",
        model=partly_on_meta,
    ),
    Case("lazy model", r"^expected a model with weights, got 1.weight .*: run it once", model=lazy),
    # The call
    Case(
        "under inference_mode",
        r"^expected to run outside torch\.inference_mode\(\)",
        inside=torch.inference_mode,
    ),
    Case("eps of 8", r"^expected eps at most 1 .*, got 8; write 8/255", changes={"eps": 8}),
    Case("eps of 0", r"^expected eps above 0, got 0$", changes={"eps": 0}),
    Case(
        "eps that is no number",
        r"^expected eps such as 8/255 or 0.03, got 'nan'$",
        changes={"eps": float("nan")},
    ),
    Case(
        "device that is not there",
        r"^expected a device of this machine, got 'cuda:77'",
        changes={"device": "cuda:77"},
    ),
    Case(
        "meta as the device",
        r"^expected --device auto, cpu, cuda or cuda:N, got 'meta'$",
        changes={"device": "meta"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_misuse_is_refused_or_evaluated_correctly_and_changes_nothing(
    case: Case, tmp_path: Path
) -> None:
    model, x, y = case.model(), case.x(), case.y()
    arguments = {"attacks": case.attacks, "eps": "0.1", "out": tmp_path} | case.changes
    of_model = traces(model) if isinstance(model, nn.Module) else None
    of_call = (*generators(), torch.is_grad_enabled(), fingerprint(x), fingerprint(y))

    verdicts, said = None, ""
    try:
        with case.inside():
            verdicts = satbench.evaluate(model, x, y, **arguments).verdicts
    except SatbenchError as error:
        said = str(error)

    assert re.search(case.said, said) if case.said else said == ""
    assert verdicts == (None if case.said else case.verdicts)
    assert "\n" not in said
    assert of_model is None or traces(model) == of_model
    assert of_call == (*generators(), torch.is_grad_enabled(), fingerprint(x), fingerprint(y))


def of_torch(x: Tensor) -> Tensor:
    return nn.functional.dropout(x, 0.5, training=True)


def of_numpy(x: Tensor) -> Tensor:
    return x * torch.from_numpy(np.random.choice([0.0, 2.0], x.shape).astype(np.float32))


def of_python(x: Tensor) -> Tensor:
    return x * torch.tensor([random.choice([0.0, 2.0]) for _ in x]).view(-1, 1, 1, 1)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("dropped", [of_torch, of_numpy, of_python])
def test_a_random_model_gets_the_same_verdicts_for_the_same_seed(
    dropped: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:

    x = torch.rand(60, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = torch.arange(60) % 2
    found = []
    for run in range(2):
        for _ in range(run):  # moves the global generators
            of_torch(x), of_numpy(x), of_python(x)
        record = satbench.evaluate(
            Fragile(before=dropped), x, y, attacks=[PGD], eps=0.1, out=tmp_path / str(run)
        )
        found.append((record.verdicts, record.identity))

    assert found[0] == found[1]


def test_training_refuses_a_seed_of_more_than_64_bits() -> None:
    with pytest.raises(SatbenchError, match=r"^expected a seed of at most 64 bits, got one of 65"):
        load_recipe("fmnist-sat", seed=2**64)


def test_the_train_method_of_a_factorys_model_may_return_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "frozen_norm.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(784, 10))\n"
        "    def train(self, mode=True):\n"
        "        super().train(mode)\n"
        "        self[0].eval()\n"
    )
    record = satbench.evaluate(
        "frozen_norm:Net", "fashion-mnist", attacks=["pgd-1"], eps=0.1, n_examples=4, out=tmp_path
    )

    assert record.n == 4


def test_an_evaluation_by_name_does_not_change_the_global_generators(
    global_generators: None, tmp_path: Path
) -> None:
    satbench.evaluate("fmnist-sat-tiny-relu-s0", attacks=["pgd-1"], n_examples=2, out=tmp_path)


@pytest.mark.parametrize(
    ("model", "sign"),
    [
        (before(lambda x: (100 * x).round() / 100), "zero-gradient"),
        (after(lambda z: 1e5 * z), "vanishing-loss-gradient"),
        (after(lambda z: z + 0.001 * torch.randn_like(z)), "randomised"),
        (before(lambda x: 0.1 * x + 0.9 * x.detach()), "unstable-gradient"),
        (after(lambda z: z.softmax(1)), "softmax-output"),
    ],
)
def test_a_model_that_hides_its_gradients_has_a_flag_in_the_record(
    model: Callable[[], nn.Module], sign: str, tmp_path: Path
) -> None:
    record = satbench.evaluate(model(), images(), labels(), attacks=[PGD], eps="0.1", out=tmp_path)
    assert record.diagnosis is not None

    assert sign in {flag.name for flag in record.diagnosis.flags}
