"""A record belongs to the model that made it, even if the weights do not distinguish models."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import satbench
from satbench.board.board import build_board
from satbench.board.publish import board_definitions
from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.core.progress.receiver import NoProgress
from satbench.core.threat import Threat
from satbench.curve.run import CurvePlan, measure_curve
from satbench.evaluation.given import Given
from satbench.evaluation.own_code import answers_of, identified
from satbench.evaluation.run import Evaluation, run_evaluation
from satbench.models import describe_module
from satbench.preflight.image_checks import dataset_from_tensors
from satbench.proofs.challenging import Challenge, run_challenge
from satbench.proofs.verification import verify_record
from satbench.records.answers import PROBES, difference, known_again, show_answers
from satbench.records.check import check_record
from satbench.records.record import ModelInfo, Record, read_record, write_record
from satbench.transfer.config import transfer_config
from satbench.transfer.run import measure_transfer

CPU = torch.device("cpu")
PGD = "pgd(steps=3,start=clean)"
X = torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.randn(3, 36, generator=torch.Generator().manual_seed(1))
Y = (X.flatten(1) @ WEIGHT.T).argmax(1)
IMAGES = dataset_from_tensors(X, Y)


class Linear(nn.Module):
    """Three logits from one registered weight; `change` is code that is applied to them."""

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor] = lambda z, x: z) -> None:
        super().__init__()
        self.weight = nn.Parameter(WEIGHT.clone())
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x.flatten(1) @ self.weight.T, x)


class Hidden(nn.Module):
    """The same with a weight that is not registered, because it is in a list."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weights = [weight]

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weights[0].T


def false_gradient(z: Tensor, x: Tensor) -> Tensor:
    """Return the logits with the gradient of another function."""
    false = x.flatten(1).sum(1, keepdim=True) * torch.linspace(-1, 1, 3)
    return z.detach() + false - false.detach()


def partly_zero_gradient(z: Tensor, x: Tensor) -> Tensor:
    """Return the logits without the gradient of a few images."""
    lost = x[:, 0, 0, 0] < 0.2
    return torch.where(lost[:, None], z.detach(), z)


def gated(z: Tensor, x: Tensor) -> Tensor:
    """Return the logits without a gradient if a pixel is far from its value in the images."""
    moved = (x[:, 0, 0, 0] - X[:, 0, 0, 0, None]).abs().min(0).values > 1e-3
    return torch.where(moved[:, None], z.detach(), z)


def evaluate(model: nn.Module | str, out: Path, **changes: Any) -> Record:
    given = {"attacks": PGD, "eps": "0.02", "name": "net"} | changes
    return satbench.evaluate(model, X, Y, out=out, **given)


OTHERS = {
    "a false gradient": (Linear(), Linear(false_gradient)),
    "no gradient for some images": (Linear(), Linear(partly_zero_gradient)),
    "no gradient once an image is moved": (Linear(), Linear(gated)),
    "other code": (Linear(), Linear(lambda z, x: z + x[:, 0, 0, :3])),
    "a higher temperature": (Linear(), Linear(lambda z, x: 1000 * z)),
    "small logits": (Linear(lambda z, x: 1e-6 * z), Linear(lambda z, x: 1e-6 * z.flip(1))),
    "small logits of another size": (
        Linear(lambda z, x: 1e-6 * z),
        Linear(lambda z, x: 2e-6 * z),
    ),
    "one class of many": (
        Linear(),
        Linear(lambda z, x: z * torch.tensor([1, 1, 1.001])),
    ),
    "hidden weights": (Hidden(WEIGHT), Hidden(WEIGHT * torch.linspace(0.9, 1.1, 36))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_model_in_the_same_folder_has_its_own_record(name: str, tmp_path: Path) -> None:
    one, other = OTHERS[name]
    for model in (one, other):
        model.__class__.__qualname__ = "Net"
    first, second = evaluate(one, tmp_path), evaluate(other, tmp_path)

    assert first.model.weights_digest == second.model.weights_digest
    assert first.identity != second.identity
    assert not second.found


def test_a_model_with_a_repaired_gradient_is_attacked_again(tmp_path: Path) -> None:
    masked = evaluate(Linear(false_gradient), tmp_path / "one")
    mended = evaluate(Linear(), tmp_path / "one")
    alone = evaluate(Linear(), tmp_path / "alone")

    assert masked.surviving() > mended.surviving()
    assert mended == replace(alone, environment=mended.environment)


@pytest.mark.parametrize(
    "change",
    [
        lambda z, x: z,
        lambda z, x: z * (1 + 1e-6 * torch.sin(1e4 * z.detach())),
        lambda z, x: z.double().float(),
        lambda z, x: z + 1e-7 * z.detach().abs().max(),
    ],
    ids=["none", "of 1e-6", "of float64", "of a sum"],
)
def test_rounding_differences_do_not_make_another_model(
    change: Callable[[Tensor, Tensor], Tensor], tmp_path: Path
) -> None:
    first = evaluate(Linear(), tmp_path)
    again = evaluate(Linear(change), tmp_path)

    assert again.found
    assert again == first


def test_answers_are_reproducible_and_not_stored_for_shipped_models(
    tmp_path: Path,
) -> None:
    answers = {answers_of(Linear(), IMAGES, CPU) for _ in range(3)}
    shipped = satbench.evaluate(
        "fmnist-sat-tiny-relu-s0", attacks="pgd-1", n_examples=3, out=tmp_path
    )

    assert len(answers) == 1
    assert (shipped.model.answers, shipped.model.answers_digest) == ("", "")


def test_answers_do_not_depend_on_the_number_of_images(tmp_path: Path) -> None:
    many = dataset_from_tensors(X.repeat(3, 1, 1, 1), Y.repeat(3))
    one, other = (answers_of(Linear(), many.first(n), CPU) for n in (40, 60))
    few = answers_of(Linear(), many.first(5), CPU)

    assert one == other
    assert len(few.split()) < len(one.split())
    assert difference(few, one) == ""


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] + torch.randn(len(x), 3) + float(np.random.rand())


def test_a_randomised_model_is_found_again(tmp_path: Path) -> None:
    evaluate(Random(), tmp_path)

    assert evaluate(Random(), tmp_path).found


class NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round(decimals=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise RuntimeError("no way back")


def test_a_model_without_a_gradient_has_answers() -> None:
    net = Linear(lambda z, x: NoBackward.apply(x).flatten(1)[:, :3])
    detached = Linear(lambda z, x: z.detach())

    assert set(answers_of(net, IMAGES, CPU).split()[PROBES : 2 * PROBES]) == {"0"}
    assert set(answers_of(detached, IMAGES, CPU).split()[PROBES : 2 * PROBES]) == {"0"}


def test_a_masked_class_distinguishes_models() -> None:
    masked = [
        answers_of(
            Linear(lambda z, x, k=k: z.index_fill(1, torch.tensor([k]), -torch.inf)), IMAGES, CPU
        )
        for k in (0, 1, 1)
    ]

    assert difference(masked[0], masked[1]) == "logits"
    assert masked[1] == masked[2]


def test_computing_answers_does_not_change_the_model() -> None:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 3)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    answers_of(net, IMAGES, CPU)

    assert net.training
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# Comparison of answers


steady = settings(deadline=None, derandomize=True, max_examples=25)
sizes = st.floats(-8, 8).map(lambda power: 10.0**power)


def numbers(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((16, 2 * PROBES))


@steady
@given(st.integers(0, 99), sizes, st.floats(-1e-5, 1e-5))
def test_answers_of_any_size_are_equal_up_to_rounding(seed: int, size: float, noise: float) -> None:
    values = size * numbers(seed)
    near = values + noise * np.linalg.norm(values, axis=1, keepdims=True) / 10

    assert difference(show_answers(values), show_answers(near)) == ""


@steady
@given(st.integers(0, 99), sizes, st.integers(0, 15), st.floats(1e-3, 1e3))
def test_one_image_with_other_logits_makes_another_model(
    seed: int, size: float, image: int, part: float
) -> None:
    values = size * numbers(seed)
    other = values.copy()
    other[image, :PROBES] *= 1 + part

    assert difference(show_answers(values), show_answers(other)) == "logits"


@steady
@given(st.integers(0, 99), sizes, st.integers(0, 15))
def test_one_image_with_another_gradient_makes_another_model(
    seed: int, size: float, image: int
) -> None:
    values = size * numbers(seed)
    other = values.copy()
    other[image, PROBES:] *= 0

    assert difference(show_answers(values), show_answers(other)) == "gradients"


def test_a_shift_of_all_gradients_makes_another_model_but_of_few_does_not() -> None:
    values = numbers(0)
    kinked, shifted = values.copy(), values.copy()
    kinked[:5, PROBES:] *= 1.03
    shifted[:, PROBES:] *= 1.03

    assert difference(show_answers(values), show_answers(kinked)) == ""
    assert difference(show_answers(values), show_answers(shifted)) == "gradients"


@pytest.mark.parametrize("text", ["", "a b", "1 2 3", "nan " * 8, "inf " * 8])
def test_a_malformed_text_of_answers_matches_no_model(text: str) -> None:
    assert difference(text, show_answers(numbers(0))) == "logits"


def test_a_known_model_is_matched_by_weights_and_answers() -> None:
    info = ModelInfo("n", "python", "a", "b", 1, "w", {})
    here = identified(info, Linear(), IMAGES, CPU)
    values = np.array([float(word) for word in here.answers.split()])
    near = replace(here, answers=show_answers(1.00001 * values), answers_digest="x")
    strangers = [info, replace(here, weights_digest="v"), replace(near, answers="1 2")]

    assert known_again(here, [*strangers, near]).answers_digest == "x"
    assert known_again(here, strangers) == here


# New runs and found records


def test_a_found_record_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not evaluate(Linear(), tmp_path).found
    assert capsys.readouterr().err == ""
    again = evaluate(Linear(), tmp_path)
    said = capsys.readouterr()

    assert again.found
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert str(again.path) in said.err


class Counted(NoProgress):
    def __init__(self, stop_after: int = -1) -> None:
        self.batches, self.stop_after = 0, stop_after

    def advance(self, images: int, survivors: int) -> None:
        self.batches += 1
        if self.batches == self.stop_after:
            raise KeyboardInterrupt


def run(model: nn.Module, out: Path, counted: Counted, fresh: bool = False) -> Record:
    evaluation = Evaluation(IMAGES, Threat.of("linf", "0.02"), [PGD], batch_size=4)
    info = describe_module(model, "net", "python")
    return run_evaluation(model, info, evaluation, CPU, out, counted, fresh).record


def test_fresh_runs_an_evaluation_again(tmp_path: Path) -> None:
    first = evaluate(Linear(), tmp_path)
    path = first.path
    assert path is not None
    write_record(replace(first, environment=replace(first.environment, finished="long ago")), path)
    second = evaluate(Linear(), tmp_path, fresh=True)

    assert not second.found
    assert second.environment.finished != "long ago"
    assert second == replace(first, environment=second.environment)


def test_a_stopped_fresh_run_is_resumed_by_the_same_call(tmp_path: Path) -> None:
    whole = Counted()
    run(Linear(), tmp_path, whole)
    with pytest.raises(KeyboardInterrupt):
        run(Linear(), tmp_path, Counted(stop_after=3), fresh=True)
    rest = Counted()
    run(Linear(), tmp_path, rest, fresh=True)

    assert 0 < rest.batches < whole.batches
    assert not list(tmp_path.glob(".runs/*"))


def test_a_fresh_run_does_not_resume_a_stopped_normal_run(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Linear(), tmp_path, Counted(stop_after=3))
    fresh, whole = Counted(), Counted()
    run(Linear(), tmp_path, fresh, fresh=True)
    run(Linear(), tmp_path / "other", whole)

    assert fresh.batches == whole.batches


def test_a_stopped_run_is_resumed_even_if_rounding_differs(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Linear(), tmp_path, Counted(stop_after=3))
    rest, whole = Counted(), Counted()
    run(Linear(lambda z, x: z * (1 + 1e-6 * torch.sin(1e4 * z.detach()))), tmp_path, rest)
    run(Linear(), tmp_path / "other", whole)

    assert rest.batches < whole.batches


SMALL = ["--n-examples", "4", "--attack", "pgd-1", "--quiet"]
SHIPPED = "fmnist-sat-tiny-relu-s0"


CURVE = ["curve", "--model", SHIPPED, *SMALL[:2], "--attack", "foolbox.fmn(steps=2)", "--quiet"]
MATRIX = ["transfer", "--source", SHIPPED, "--target", SHIPPED, *SMALL[:2], "--quiet"]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["eval", "--model", SHIPPED, *SMALL], id="eval"),
        pytest.param(CURVE, id="curve", marks=pytest.mark.slow),
        pytest.param(MATRIX, id="transfer", marks=pytest.mark.slow),
    ],
)
def test_the_command_line_finds_a_result_and_again_runs_it_again(
    words: list[str], tmp_path: Path
) -> None:
    words = [*words, "--out", str(tmp_path)]
    first, second, third = (
        CliRunner().invoke(cli, [*words, *more]) for more in ([], [], ["--again"])
    )

    assert [f"\n{word} " in done.stdout for done in (first, second, third) for word in KINDS] == [
        *(True, False),
        *(False, True),
        *(True, False),
    ]


KINDS = ("wrote", "found")


def test_the_command_line_says_how_to_run_a_found_result_again(tmp_path: Path) -> None:
    words = ["eval", "--model", SHIPPED, *SMALL[:-1], "--out", str(tmp_path)]
    told = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)

    assert told[0]["found"] is False
    assert "--again" in CliRunner().invoke(cli, words).stdout


# Other commands


def curve(model: nn.Module, out: Path) -> bool:
    plan = CurvePlan(IMAGES, "linf", ["foolbox.fmn(steps=2)"])
    return measure_curve(model, describe_module(model, "net", "python"), plan, out).found


@pytest.mark.slow
def test_a_curve_belongs_to_the_model_that_made_it(tmp_path: Path) -> None:
    found = [curve(Linear(change), tmp_path) for change in (false_gradient, lambda z, x: z)]

    assert [*found, curve(Linear(), tmp_path)] == [False, False, True]


CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(SEED)
        self.weights = [torch.randn(10, 784, generator=generator)]

    def forward(self, x):
        return x.flatten(1) @ self.weights[0].T

class Round(nn.Module):
    def forward(self, x):
        return SEED * x
"""


@pytest.fixture
def write_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that writes the module `own_nets`, whose net depends only on a number."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(seed: int) -> None:
        (tmp_path / "own_nets.py").write_text(CODE.replace("SEED", str(seed)), encoding="utf-8")
        (tmp_path / "twin_nets.py").write_text(CODE.replace("SEED", "7"), encoding="utf-8")
        sys.modules.pop("own_nets", None)
        importlib.invalidate_caches()

    write(1)
    yield write
    for name in ("own_nets", "twin_nets"):
        sys.modules.pop(name, None)


OWN, TWIN = "own_nets:Net", "twin_nets:Net"


def matrix(out: Path, sources: tuple[str, ...], targets: tuple[str, ...]) -> Any:
    config = transfer_config(
        sources,
        targets,
        "transfer(steps=1,method=pgd)",
        dataset="fashion-mnist",
        eps="0.1",
        n_examples=4,
        out=out,
    )
    return measure_transfer(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sources", "targets"),
    [
        pytest.param((SHIPPED,), (OWN,), id="target"),
        pytest.param((OWN,), (SHIPPED,), id="source", marks=pytest.mark.slow),
    ],
)
def test_a_transfer_matrix_belongs_to_the_models_that_made_it(
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    write_code: Callable[[int], None],
    tmp_path: Path,
) -> None:
    first = matrix(tmp_path / "out", sources, targets)
    again = matrix(tmp_path / "out", sources, targets)
    write_code(2)
    other = matrix(tmp_path / "out", sources, targets)

    assert [first.found, again.found, other.found] == [False, True, False]


@pytest.mark.slow
def test_a_plugin_with_changed_code_gets_a_new_matrix(
    write_code: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from satbench.models import MODELS

    monkeypatch.setattr(MODELS, "__dict__", dict(MODELS.__dict__))
    MODELS.__dict__.pop("_plugins", None)
    folder = tmp_path / "own_zoo-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: own-zoo\nVersion: 1\n")
    (folder / "entry_points.txt").write_text(f"[satbench.models]\nown-net = {OWN}\n")
    found = []
    for seed in (1, 1, 2):
        write_code(seed)
        found.append(matrix(tmp_path / "out", (SHIPPED,), ("own-net",)).found)

    assert found == [False, True, False]


def test_equal_registered_weights_do_not_make_a_white_box(
    write_code: Callable[[int], None], tmp_path: Path
) -> None:
    measured = matrix(tmp_path / "out", (OWN, TWIN), (OWN,))
    (target,) = measured.matrix.targets

    assert target.white_box == [True, False]


SHIPPED_BY_CODE = """
from satbench.models import load_model, request_model

def make():
    return load_model(request_model("fmnist-sat-tiny-relu-s0"), 10).module
"""


def test_a_shipped_model_is_a_white_box_for_itself_under_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shipped_by_code.py").write_text(SHIPPED_BY_CODE, encoding="utf-8")
    measured = matrix(tmp_path / "out", ("shipped_by_code:make",), (SHIPPED,))

    assert measured.matrix.targets[0].white_box == [True]


def test_a_record_belongs_to_the_surrogates_of_its_attacks(
    write_code: Callable[[int], None], tmp_path: Path
) -> None:
    given = {"attacks": f"transfer(source={OWN},steps=1,method=pgd)", "eps": "0.1"}
    given |= {"n_examples": 4, "out": tmp_path / "out"}
    found = []
    for seed in (1, 1, 2):
        write_code(seed)
        record = satbench.evaluate(SHIPPED, **given)
        found.append(record.found)
    path = record.path
    assert path is not None

    assert found == [False, True, False]
    assert verify_record(path, Given(trust=(OWN,))).faults == []
    write_code(1)
    (fault,) = verify_record(path, Given(trust=(OWN,))).faults
    assert fault.startswith(f"the surrogate {OWN} here gives other answers")


def test_a_record_belongs_to_the_bpda_replacements_of_its_searches(
    write_code: Callable[[int], None], tmp_path: Path
) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Identity(), Linear()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x))

    found = []
    for seed in (1, 1, -1):
        write_code(seed)
        record = evaluate(Net(), tmp_path / "out", bpda={"layer": "own_nets:Round"})
        found.append(record.found)

    assert found == [False, True, False]
    assert evaluate(Net(), tmp_path, bpda={"layer": "identity"}).replacements == {
        "layer": "identity"
    }


def test_verify_refuses_a_model_with_equal_weights_and_other_logits(tmp_path: Path) -> None:
    record = evaluate(Hidden(WEIGHT), tmp_path)
    path = record.path
    assert path is not None
    # So near that no prediction differs; only the answers differ.
    near = Hidden(WEIGHT * torch.linspace(0.9999, 1.0001, 36) * 1.01)

    assert verify_record(path, Given(Hidden(WEIGHT), IMAGES)).confirmed
    assert verify_record(path, Given(near, IMAGES)).faults == [
        "the model is not the record's: net here has the same weights, but gives other logits on "
        "the record's first images"
    ]


def test_a_challenge_refuses_a_model_with_other_gradients(tmp_path: Path) -> None:
    record = evaluate(Linear(false_gradient), tmp_path)
    path = record.path
    assert path is not None
    asked = Challenge(path, ("pgd-9",), given=Given(Linear(), IMAGES))

    assert verify_record(path, Given(Linear(), IMAGES)).confirmed
    with pytest.raises(SatbenchError, match="but other gradients: evaluate it again"):
        run_challenge(asked)


def test_models_with_equal_weights_and_different_code_have_separate_rows(tmp_path: Path) -> None:
    records = [evaluate(Hidden(weight), tmp_path) for weight in (WEIGHT, -WEIGHT)]
    again = evaluate(Hidden(1.000001 * WEIGHT), tmp_path / "elsewhere", attacks="pgd-2")
    assert again.model.answers != records[0].model.answers
    (benchmark,) = build_board([*records, again]).benchmarks

    assert sorted(len(row.records) for row in benchmark.rows) == [1, 2]


def test_records_of_different_code_are_not_merged(tmp_path: Path) -> None:
    one, other = (
        evaluate(Linear(change), tmp_path, attacks=attack)
        for change, attack in ((false_gradient, "pgd-1"), (lambda z, x: z, "pgd-2"))
    )
    with pytest.raises(SatbenchError, match="got other answers in a record of net"):
        satbench.merge([one, other], Linear(), X, Y)


def test_records_whose_answers_differ_by_rounding_are_merged(tmp_path: Path) -> None:
    rounding = Linear(lambda z, x: z * (1 + 1e-6 * torch.sin(1e4 * z.detach())))
    one = evaluate(Linear(), tmp_path / "one", attacks="pgd-1")
    other = evaluate(rounding, tmp_path / "other", attacks="pgd-2")

    assert one.model.answers != other.model.answers
    assert satbench.merge([one, other], Linear(), X, Y).surviving() <= one.surviving()


# Older records


def test_an_older_record_without_answers_is_read_and_verified(tmp_path: Path) -> None:
    record = evaluate(Linear(), tmp_path)
    path = record.path
    assert path is not None
    values = json.loads(path.read_text())
    del values["model"]["answers"]
    path.write_text(json.dumps(values))

    assert read_record(path).model.answers == ""
    assert verify_record(path, Given(Linear(), IMAGES)).confirmed


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"answers": 5}},
        {"model": {"answers_digest": None}},
        {"sources": {"a": 1}},
        {"sources": [1]},
        {"replacements": {"a": []}},
    ],
    ids=str,
)
def test_a_record_with_fields_that_are_not_texts_is_refused(
    change: dict[str, Any], tmp_path: Path
) -> None:
    path = evaluate(Linear(), tmp_path).path
    assert path is not None
    values = json.loads(path.read_text())
    for key, value in change.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(values))
    with pytest.raises(SatbenchError, match=r"^the record .* is wrong: "):
        read_record(path)


def test_changed_answers_do_not_match_their_digest(tmp_path: Path) -> None:
    record = evaluate(Linear(), tmp_path)
    model = replace(record.model, answers=record.model.answers + " ")

    assert check_record(record) == []
    assert check_record(replace(record, model=model)) == [
        "the model's answers are not those of their digest"
    ]


def test_shipped_records_keep_their_identities() -> None:
    paths = [
        path
        for definition in board_definitions()
        for path in sorted((definition.folder / "records").glob("*.json"))[:5]
    ]

    assert len(paths) >= 5
    assert [check_record(read_record(path)) for path in paths] == [[] for _ in paths]
