from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import satbench
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.evaluation import api
from satbench.evaluation.api import evaluate_config
from satbench.evaluation.config import eval_config
from satbench.evaluation.report import rows_of
from satbench.evaluation.run import Evaluation, Finished, run_evaluation
from satbench.models import LoadedModel, describe_module
from satbench.records.check import check_record
from satbench.records.flags import not_diagnosed
from satbench.records.record import Diagnosis, Record, StageResult, read_record, write_record
from satbench.records.witnesses import read_witnesses, witnesses_path

SHIPPED = "fmnist-sat-tiny-relu-s0"
SHORT = "pgd(steps=1,start=clean)"  # reaches eps/4
FULL = "pgd(steps=5,start=clean)"
SPELLED = tuple(
    f"pgd(steps={steps},step=eps/4,restarts=1,start=clean,keep=any)" for steps in (1, 5)
)
X = torch.tensor([0.49, 0.51, 0.55, 0.61, 0.7]).view(-1, 1, 1, 1).repeat(1, 1, 2, 2)
Y = torch.ones(5, dtype=torch.int64)


def evaluate(model: nn.Module, out: Path, **changes: Any) -> Record:
    given: dict[str, Any] = {"x": X, "y": Y, "attacks": [SHORT, FULL], "eps": "0.1"} | changes
    return api.evaluate(model, given.pop("x"), given.pop("y"), out=out, **given)


# satbench.evaluate


def test_evaluate_can_be_called_as_the_readme_says(mean_model: nn.Module, tmp_path: Path) -> None:
    for _ in range(2):
        record = satbench.evaluate(mean_model, X, Y, attacks=[SHORT], eps="0.1", out=tmp_path)

    assert record.verdicts == [0, 1, -1, -1, -1]


def test_the_record_holds_the_verdict_of_every_image(mean_model: nn.Module, tmp_path: Path) -> None:
    record = evaluate(mean_model, tmp_path)

    assert record.verdicts == [0, 1, 2, -1, -1]
    assert (record.clean_correct, record.surviving(1), record.surviving()) == (4, 3, 2)


def test_a_record_without_diagnosis_says_so_and_does_not_replace_one_with_it(
    mean_model: nn.Module, tmp_path: Path
) -> None:
    bare = evaluate(mean_model, tmp_path, diagnose=False)
    whole = evaluate(mean_model, tmp_path)
    again = evaluate(mean_model, tmp_path, diagnose=False)

    assert bare.diagnosis
    assert whole.diagnosis
    assert (bare.diagnosis.forwards, bare.diagnosis.backwards) == (0, 0)
    assert [not_diagnosed(one.diagnosis.flags) for one in (bare, whole)] == [True, False]  # type: ignore[union-attr]
    assert whole.diagnosis.forwards > 0
    assert whole.diagnosis == again.diagnosis
    assert bare.verdicts == whole.verdicts


@pytest.mark.parametrize("diagnose", [True, False])
def test_verify_confirms_a_record_with_or_without_diagnosis(
    diagnose: bool, mean_model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satbench.diagnosis.diagnose.FEWEST", 2)  # of 4 images that are right
    record = evaluate(mean_model, tmp_path, diagnose=diagnose)

    assert record.diagnosis
    assert record.diagnosis.images == (2 if diagnose else 0)
    assert [] == satbench.verify(record, mean_model, X, Y).faults


@pytest.mark.parametrize("images", [0, 1, 5])
def test_a_record_with_a_wrong_number_of_diagnosed_images_is_not_confirmed(
    images: int, mean_model: nn.Module, tmp_path: Path
) -> None:
    record = evaluate(mean_model, tmp_path)
    assert record.diagnosis
    assert record.path
    changed = replace(record, diagnosis=replace(record.diagnosis, images=images))
    write_record(changed, record.path)

    faults = satbench.verify(record.path, mean_model, X, Y).faults
    assert [f"examined {images} of" in fault for fault in faults] == [True]


def test_no_image_is_diagnosed_if_none_survives(mean_model: nn.Module, tmp_path: Path) -> None:
    record = evaluate(mean_model, tmp_path, eps="0.5")

    assert record.surviving() == 0
    assert record.diagnosis == Diagnosis([], 0, 0, 0)


def test_the_record_says_what_was_evaluated(mean_model: nn.Module, tmp_path: Path) -> None:
    record = evaluate(mean_model, tmp_path, seed=3, name="mean")

    assert (record.norm, record.eps, record.seed) == ("linf", "0.1", 3)
    assert record.suite == list(SPELLED)
    assert (record.model.name, record.model.source) == ("mean", "python")
    assert (record.dataset.name, record.dataset.n, record.dataset.classes) == ("tensors", 5, 2)


def test_the_record_counts_the_images_and_passes_of_each_stage(
    mean_model: nn.Module, tmp_path: Path
) -> None:
    record = evaluate(mean_model, tmp_path, attacks=["pgd-1(start=clean,keep=last)", "pgd-3"])

    assert record.stages[0] == StageResult(
        "pgd(steps=1,step=eps/4,restarts=1,start=clean,keep=last)", "", 4, 1, 4, 4
    )
    assert record.stages[1].attacked == 3


def test_the_record_is_consistent_and_equals_its_file(
    mean_model: nn.Module, tmp_path: Path
) -> None:
    record = evaluate(mean_model, tmp_path)
    (path,) = tmp_path.glob("*.json")

    assert check_record(record) == []
    assert read_record(path) == record


def test_the_witness_file_next_to_the_record_has_one_image_per_broken_image(
    mean_model: nn.Module, tmp_path: Path
) -> None:
    record = evaluate(mean_model, tmp_path)
    (path,) = tmp_path.glob("*.json")
    witnesses = read_witnesses(witnesses_path(path))

    assert witnesses.indices.tolist() == [1, 2]
    assert witnesses.digest == record.witnesses_digest
    assert (mean_model(torch.from_numpy(witnesses.images)).argmax(1) == 0).all()


def test_witnesses_are_in_the_order_of_images_not_of_stages(
    mean_model: nn.Module, tmp_path: Path
) -> None:
    record = evaluate(mean_model, tmp_path, x=X.flip(0))
    (path,) = tmp_path.glob("*.json")

    assert record.verdicts == [-1, -1, 2, 1, 0]
    assert read_witnesses(witnesses_path(path)).indices.tolist() == [2, 3]


def test_a_model_that_nothing_breaks_has_no_witnesses(
    mean_model: nn.Module, tmp_path: Path
) -> None:
    evaluate(mean_model, tmp_path, x=X[3:], y=Y[3:])
    (path,) = tmp_path.glob("*.json")

    assert read_witnesses(witnesses_path(path)).images.shape == (0, 1, 2, 2)


def test_the_model_is_unchanged_after_an_evaluation(mean_model: nn.Module, tmp_path: Path) -> None:
    mean_model.train()
    evaluate(mean_model, tmp_path)

    assert mean_model.training
    assert [(p.requires_grad, p.grad) for p in mean_model.parameters()] == [(True, None)]


def test_global_random_generators_are_unchanged(
    mean_model: nn.Module, global_generators: None, tmp_path: Path
) -> None:
    x = X.repeat(1, 1, 4, 4)
    evaluate(mean_model, tmp_path, x=x, attacks=["pgd-2", "apgd-ce(steps=2)", "square(queries=5)"])


def test_numpy_arrays_are_accepted(mean_model: nn.Module, tmp_path: Path) -> None:
    tensors, arrays = (
        evaluate(mean_model, tmp_path / str(i), x=x, y=y)
        for i, (x, y) in enumerate([(X, Y), (X.numpy(), Y.numpy())])
    )

    assert arrays.verdicts == tensors.verdicts
    assert arrays.identity == tensors.identity


def test_n_examples_evaluates_the_first_images(mean_model: nn.Module, tmp_path: Path) -> None:
    assert evaluate(mean_model, tmp_path, n_examples=3).verdicts == [0, 1, 2]


def test_eps_as_a_fraction_and_as_a_float_are_equal(mean_model: nn.Module, tmp_path: Path) -> None:
    found = [
        evaluate(mean_model, tmp_path / str(i), eps=eps).identity
        for i, eps in enumerate(("8/255", 8 / 255))
    ]

    assert found[0] == found[1]


def test_l2_distances_are_measured_in_l2(mean_model: nn.Module, tmp_path: Path) -> None:
    # 4 pixels, so the distance in L2 is twice the distance of the mean.
    record = evaluate(mean_model, tmp_path, norm="l2", attacks=["pgd-9(start=clean)"], eps=0.21)

    assert record.verdicts == [0, 1, 1, -1, -1]


def test_a_shipped_model_is_evaluated_by_name_with_the_settings_of_its_training(
    tmp_path: Path,
) -> None:
    record = api.evaluate(SHIPPED, attacks=["pgd-2"], n_examples=20, out=tmp_path)

    assert (record.model.name, record.dataset.name) == (SHIPPED, "fashion-mnist")
    assert (record.norm, record.eps, record.n) == ("linf", "0.1", 20)
    assert record.model.training["recipe"] == "fmnist-sat"


def test_a_users_model_is_evaluated_on_a_data_set_by_name(
    small_net: Callable[..., nn.Module], tmp_path: Path
) -> None:
    record = api.evaluate(
        small_net(classes=10),
        "fashion-mnist",
        attacks=["pgd-1"],
        eps=0.1,
        n_examples=9,
        out=tmp_path,
    )

    assert (record.dataset.name, record.n) == ("fashion-mnist", 9)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"eps": None}, r"^expected eps, .* such as eps='8/255'$"),
        ({"eps": 8}, r"^expected eps at most 1 .*, got 8; write 8/255"),
        ({"y": None}, r"^expected images x and labels y, or the name of a data set as x$"),
        ({"attacks": []}, r"^expected at least one attack"),
        ({"attacks": ["pdg"]}, r"^unknown attack 'pdg': did you mean 'pgd'\?$"),
        ({"norm": "l7"}, r"^expected a norm among linf, l2 and l1, got 'l7'$"),
        ({"x": X * 255}, r"^expected pixels in \[0, 1\], got .*: divide them by 255$"),
        ({"device": "cuda:77"}, r"^expected a device of this machine, got 'cuda:77'"),
        ({"device": "gpu"}, r"^expected --device auto, cpu, cuda or cuda:N, got 'gpu'$"),
        ({"n_examples": 0}, r"^expected "),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, dict) else "said",
)
def test_wrong_arguments_are_refused_in_one_sentence(
    changes: dict[str, Any], said: str, mean_model: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(SatbenchError, match=said):
        evaluate(mean_model, tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 0}, r"^expected a batch size of 1 or more, got 0$"),
        ({"batch_size": -1}, r"^expected a batch size of 1 or more, got -1$"),
        ({"n_examples": -1}, r"^expected .*example.*got -1"),
        ({"n_examples": 6}, r"^expected at most 5 examples"),
    ],
)
def test_a_number_out_of_range_is_refused_in_one_sentence(
    changes: dict[str, Any], said: str, mean_model: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(SatbenchError, match=said):
        evaluate(mean_model, tmp_path, **changes)


def test_a_named_model_is_evaluated_on_tensors(fashion: Dataset, tmp_path: Path) -> None:
    few = fashion.first(6)
    x, y = torch.from_numpy(few.pixels(np.arange(6))), torch.from_numpy(few.labels)
    named = api.evaluate(SHIPPED, x, y, attacks=["pgd-2"], n_examples=5, out=tmp_path)
    whole = api.evaluate(SHIPPED, attacks=["pgd-2"], n_examples=5, out=tmp_path)

    assert (named.dataset.name, named.dataset.split, named.n) == ("tensors", "user", 5)
    assert named.model == whole.model
    assert (named.norm, named.eps) == (whole.norm, whole.eps)
    assert named.verdicts == whole.verdicts


@pytest.mark.parametrize(
    ("x", "y"), [(X, None), (None, Y), ("fashion-mnist", Y)], ids=["no y", "no x", "a name and y"]
)
@pytest.mark.parametrize("by_name", [True, False])
def test_images_without_labels_and_labels_without_images_are_refused(
    x: Any, y: Any, by_name: bool, mean_model: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(SatbenchError, match=r"^expected images x and labels y, or the name of a"):
        api.evaluate(SHIPPED if by_name else mean_model, x, y, eps="0.1", out=tmp_path)


def test_a_named_model_without_a_known_eps_needs_one(tmp_path: Path) -> None:
    with pytest.raises(
        SatbenchError, match=r"^expected a radius for the attacks on torchvision:resnet18"
    ):
        api.evaluate("torchvision:resnet18@IMAGENET1K_V1", X, Y, out=tmp_path)


def test_images_whose_shape_differs_from_the_card_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "tree" / name / "0.png")
    config = eval_config(SHIPPED, dataset=f"imagefolder:{tmp_path / 'tree'}", out=tmp_path / "out")
    with pytest.raises(
        SatbenchError, match=r"^expected images of shape \(1, 28, 28\) for .*, got \(3, 224, 224\)"
    ):
        evaluate_config(config)


# Identity, and records that are found again


@pytest.fixture
def run(shipped: LoadedModel, fashion: Dataset) -> Callable[..., Finished]:
    """Return a function that runs an evaluation of ten images into a folder."""

    def run(out: Path, attacks: tuple[str, ...] = ("pgd-2",), **changes: Any) -> Finished:
        given = {"eps": "0.1", "n": 10, "seed": 0, "batch_size": 4, "info": shipped.info} | changes
        evaluation = Evaluation(
            fashion.first(given["n"]),
            Threat.of("linf", given["eps"]),
            attacks,
            given["seed"],
            given["batch_size"],
        )
        return run_evaluation(shipped.module, given["info"], evaluation, torch.device("cpu"), out)

    return run


def test_the_record_of_the_same_evaluation_is_found_again(
    run: Callable[..., Finished], tmp_path: Path
) -> None:
    first, second = run(tmp_path), run(tmp_path)

    assert (first.found, second.found) == (False, True)
    assert second.record == first.record


def test_two_specs_of_the_same_attack_are_the_same_evaluation(
    run: Callable[..., Finished], tmp_path: Path
) -> None:
    run(tmp_path, ("pgd-2",))

    assert run(tmp_path, ("pgd(steps=2, restarts=1)",)).found


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "changes",
    [{"eps": "0.11"}, {"n": 9}, {"seed": 1}, {"attacks": ("pgd-3",)}],
    ids=str,
)
def test_another_input_makes_another_evaluation(
    changes: dict[str, Any], run: Callable[..., Finished], tmp_path: Path
) -> None:
    first, second = run(tmp_path), run(tmp_path, **changes)

    assert not second.found
    assert second.record.identity != first.record.identity
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_the_order_of_the_attacks_changes_the_identity(
    run: Callable[..., Finished], tmp_path: Path
) -> None:
    run(tmp_path, ("pgd-2", "pgd-3"))

    assert not run(tmp_path, ("pgd-3", "pgd-2")).found


def test_the_batch_size_does_not_change_the_identity(
    run: Callable[..., Finished], tmp_path: Path
) -> None:
    run(tmp_path, batch_size=4)

    assert run(tmp_path, batch_size=3).found


def test_another_batch_size_gives_the_same_verdicts_and_witnesses(
    run: Callable[..., Finished], tmp_path: Path
) -> None:
    records = [run(tmp_path / str(size), batch_size=size).record for size in (3, 10)]

    assert records[0].verdicts == records[1].verdicts
    assert [(s.attacked, s.broken) for s in records[0].stages] == [
        (s.attacked, s.broken) for s in records[1].stages
    ]


def test_two_models_with_equal_weights_and_different_code_are_two_evaluations(
    mean_model: nn.Module, tmp_path: Path
) -> None:
    class Negated(type(mean_model)):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = super().forward(x)
            return -logits

    plain, negated = (
        describe_module(model, "m", "python").weights_digest for model in (mean_model, Negated())
    )
    Negated.__qualname__ = type(mean_model).__qualname__
    Negated.__module__ = type(mean_model).__module__
    records = [evaluate(model, tmp_path, name="m") for model in (mean_model, Negated())]

    assert plain == negated
    assert records[0].identity != records[1].identity
    assert records[1].verdicts[0] != 0


def test_the_file_name_holds_model_data_set_threat_model_and_identity(
    run: Callable[..., Finished], tmp_path: Path
) -> None:
    done = run(tmp_path, eps="8/255")

    assert (
        done.path.name == f"{SHIPPED}-fashion-mnist-linf-8over255-{done.record.identity[:8]}.json"
    )


# The report


def test_the_report_has_a_row_for_clean_each_attack_and_overall(
    mean_model: nn.Module, tmp_path: Path
) -> None:
    rows = rows_of(evaluate(mean_model, tmp_path))

    assert [(row.correct, row.n) for row in rows] == [(4, 5), (3, 5), (2, 5), (2, 5)]
    assert rows[-1].accuracy == 2 / 5
    assert rows[-1].low < 2 / 5 < rows[-1].high


def test_the_overall_cost_is_the_sum_of_the_rows(mean_model: nn.Module, tmp_path: Path) -> None:
    rows = rows_of(evaluate(mean_model, tmp_path))

    assert rows[-1].forwards == sum(row.forwards for row in rows[:-1])
    assert rows[-1].backwards == sum(row.backwards for row in rows[:-1])


class Permuted(nn.Module):
    """A model whose outputs have another order of classes than the labels."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x).roll(1, 1)
        return logits


class Normalised(nn.Module):
    """A model whose pixels are shifted and scaled once too often."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model((x - 8) / 0.02)
        return logits


@pytest.mark.parametrize("spoil", [Permuted, Normalised])
def test_a_model_at_chance_level_is_flagged_with_the_likely_causes(
    spoil: Callable[[nn.Module], nn.Module], shipped: LoadedModel, fashion: Dataset, tmp_path: Path
) -> None:
    x, y = torch.from_numpy(fashion.pixels(np.arange(100))), torch.from_numpy(fashion.labels[:100])
    honest, spoilt = (
        api.evaluate(model, x, y, attacks=["pgd-1"], eps="0.01", out=tmp_path)
        for model in (shipped.module, spoil(shipped.module))
    )

    flags = [flag for record in (honest, spoilt) for flag in record.diagnosis.flags]  # type: ignore[union-attr]
    assert [flag.name for flag in flags if flag.name == "clean-at-chance"] == ["clean-at-chance"]
    assert all(word in str(flags) for word in ("labels", "normalised", "prepared"))
