"""A record that was tampered with does not pass, and its fault is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset, load_dataset
from satbench.evaluation.given import Given
from satbench.evaluation.run import Evaluation, run_evaluation
from satbench.models import LoadedModel, load_model, request_model
from satbench.proofs.verification import Verified, verify_record
from satbench.records.record import Record, identity_of, inputs_of, read_record, write_record
from satbench.records.witnesses import (
    Witnesses,
    read_witnesses,
    witnesses_path,
    write_witnesses,
)

N = 40


@pytest.fixture(autouse=True)
def _read_the_images_once(monkeypatch: pytest.MonkeyPatch, fashion: Dataset) -> None:
    monkeypatch.setattr("satbench.evaluation.given.load_dataset", lambda *_, **__: fashion)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a good record."""
    model = load_model(request_model("fmnist-sat-tiny-relu-s0"), 10)
    images = load_dataset("fashion-mnist", "test", N)
    evaluation = Evaluation(images, Threat.parse("linf:0.1"), ["pgd-1", "pgd-10"])
    out = tmp_path_factory.mktemp("good")
    return run_evaluation(model.module, model.info, evaluation, torch.device("cpu"), out).path


@pytest.fixture
def good(evaluated: Path, tmp_path: Path) -> Path:
    """Return the path of a copy of the good record that a test may change."""
    for path in (evaluated, witnesses_path(evaluated)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / evaluated.name


def faults_of(path: Path) -> list[str]:
    return verify_record(path).faults


def change(path: Path, spoil: Callable[[Record], Record]) -> Record:
    """Change a record and its identity, as a careful forger would."""
    record = spoil(read_record(path))
    record = replace(record, identity=identity_of(inputs_of(record)))
    write_record(record, path)
    return record


def change_witnesses(path: Path, spoil: Callable[[Witnesses], Witnesses]) -> Witnesses:
    """Change the witnesses and the record's digest."""
    witnesses = spoil(read_witnesses(witnesses_path(path)))
    write_witnesses(witnesses, witnesses_path(path))
    write_record(replace(read_record(path), witnesses_digest=witnesses.digest), path)
    return witnesses


def with_first(witnesses: Witnesses, spoil: Callable[[Any], None]) -> Witnesses:
    images = witnesses.images.copy()
    spoil(images[0])
    return replace(witnesses, images=images)


def test_a_good_record_passes(good: Path) -> None:
    record = read_record(good)
    broken = sum(verdict > 0 for verdict in record.verdicts)

    assert {1, 2} <= set(record.verdicts)
    assert verify_record(good) == Verified(
        good, N, broken, [], record.clean_correct, record.surviving()
    )


def test_the_model_runs_on_the_given_device(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    @contextmanager
    def noted(modules: Sequence[torch.nn.Module], device: torch.device) -> Iterator[None]:
        asked.append(device)
        yield

    monkeypatch.setattr("satbench.proofs.verification.moved", noted)

    assert verify_record(good, device="cpu").confirmed
    assert asked == [torch.device("cpu")]
    with pytest.raises(SatbenchError, match="expected a device of this machine, got 'cuda:77'"):
        verify_record(good, device="cuda:77")


@pytest.mark.gpu
def test_a_gpu_confirms_the_verdicts_of_the_cpu(good: Path) -> None:
    assert verify_record(good, device="cuda").confirmed


def test_a_survivor_changed_to_broken_has_no_witness(good: Path) -> None:
    index = read_record(good).verdicts.index(-1)

    def spoil(record: Record) -> Record:
        verdicts = list(record.verdicts)
        verdicts[index] = 2
        stages = [record.stages[0], replace(record.stages[1], broken=record.stages[1].broken + 1)]
        return replace(record, verdicts=verdicts, stages=stages)

    change(good, spoil)

    assert faults_of(good) == [
        "the witnesses do not match the broken verdicts: 1 verdicts have no witness, "
        f"0 witnesses have no verdict (first: image {index})"
    ]


def test_a_broken_image_changed_to_survivor_has_an_extra_witness(good: Path) -> None:
    index = read_record(good).verdicts.index(2)

    def spoil(record: Record) -> Record:
        verdicts = list(record.verdicts)
        verdicts[index] = -1
        stages = [record.stages[0], replace(record.stages[1], broken=record.stages[1].broken - 1)]
        return replace(record, verdicts=verdicts, stages=stages)

    change(good, spoil)

    assert faults_of(good) == [
        "the witnesses do not match the broken verdicts: 0 verdicts have no witness, "
        f"1 witnesses have no verdict (first: image {index})"
    ]


@pytest.mark.parametrize(("old", "new", "said"), [(0, -1, "right"), (-1, 0, "wrong")])
def test_a_clean_verdict_that_contradicts_the_model_is_named(
    old: int, new: int, said: str, good: Path
) -> None:
    index = read_record(good).verdicts.index(old)

    def spoil(record: Record) -> Record:
        verdicts = list(record.verdicts)
        verdicts[index] = new
        more = 1 if new else -1
        stages = [replace(stage, attacked=stage.attacked + more) for stage in record.stages]
        return replace(record, verdicts=verdicts, stages=stages)

    change(good, spoil)

    assert faults_of(good) == [
        f"image {index}: the record says {said} when clean, the model says otherwise"
    ]


def test_a_changed_verdict_contradicts_the_counts(good: Path) -> None:
    verdicts = read_record(good).verdicts
    verdicts[verdicts.index(2)] = 1
    change(good, lambda record: replace(record, verdicts=verdicts))

    assert [fault.partition(" broke ")[0] for fault in faults_of(good) if " broke " in fault] == [
        "pgd-1",
        "pgd-10",
    ] or len([fault for fault in faults_of(good) if " broke " in fault]) == 2


def test_a_verdict_of_a_missing_stage_is_named(good: Path) -> None:
    verdicts = read_record(good).verdicts
    verdicts[verdicts.index(2)] = 3
    change(good, lambda record: replace(record, verdicts=verdicts))

    assert "there are verdicts that name no stage: [3]" in faults_of(good)


def test_a_witness_outside_the_ball_is_named(good: Path) -> None:
    def spoil(image: Any) -> None:
        image[0, 0, 0] = 0.5  # a corner of the first broken image is black

    index = change_witnesses(good, lambda w: with_first(w, spoil)).indices[0]

    (fault,) = faults_of(good)
    assert fault.startswith(
        f"image {index}: its witness is not allowed: expected perturbations within linf:0.1, "
        "got one of size 0.5"
    )


@pytest.mark.parametrize(
    "value",
    [-1e-3, 1.001, np.nan],
)
def test_a_witness_with_invalid_pixels_is_named(value: float, good: Path) -> None:
    def spoil(image: Any) -> None:
        image[0, 0, 0] = value

    index = change_witnesses(good, lambda w: with_first(w, spoil)).indices[0]

    faults = faults_of(good)
    assert faults[0].startswith(f"image {index}: its witness is not allowed: expected ")
    assert "adversarial pixels" in faults[0]


def test_a_witness_that_the_model_gets_right_is_named(good: Path, fashion: Dataset) -> None:
    def spoil(witnesses: Witnesses) -> Witnesses:
        clean = fashion.pixels(witnesses.indices[:1])
        return replace(witnesses, images=np.concatenate([clean, witnesses.images[1:]]))

    index = change_witnesses(good, spoil).indices[0]

    assert faults_of(good) == [
        f"image {index}: the model is right about its witness, so it is not broken"
    ]


def test_witnesses_with_another_digest_are_named(good: Path) -> None:
    path = witnesses_path(good)
    witnesses = read_witnesses(path)
    write_witnesses(replace(witnesses, images=witnesses.images[::-1]), path)

    assert faults_of(good) == ["the witnesses are not the record's: their digest differs"]


def test_missing_witnesses_are_named(good: Path) -> None:
    witnesses_path(good).unlink()

    assert [f"expected witnesses at {witnesses_path(good)}, which are missing"] == [
        fault.partition(" (")[0] for fault in faults_of(good)
    ]


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda data: b"",
        lambda data: b"PK no zip",
        lambda data: data[: len(data) // 2],
        lambda data: data[:300] + bytes([data[300] ^ 0xFF]) + data[301:],
    ],
    ids=["empty", "text", "half", "one byte turned"],
)
def test_corrupt_witnesses_are_named(corrupt: Callable[[bytes], bytes], good: Path) -> None:
    path = witnesses_path(good)
    path.write_bytes(corrupt(path.read_bytes()))

    (fault,) = faults_of(good)
    assert fault.startswith(f"the witnesses {path} are corrupt (")


def test_witnesses_of_another_shape_are_named(good: Path) -> None:
    change_witnesses(good, lambda w: replace(w, images=w.images[..., :14]))

    assert faults_of(good) != []


def test_a_changed_eps_contradicts_the_identity(good: Path) -> None:
    write_record(replace(read_record(good), eps="0.2"), good)

    assert faults_of(good) == ["the identity is not that of the inputs: one of them was changed"]


def test_a_changed_eps_contradicts_the_witnesses(good: Path) -> None:
    record = change(good, lambda record: replace(record, eps="0.05"))
    broken = [i for i, verdict in enumerate(record.verdicts) if verdict > 0]
    faults = faults_of(good)

    assert faults
    assert all("its witness is not allowed" in fault for fault in faults)
    assert {int(fault.split()[1].rstrip(":")) for fault in faults} <= set(broken)


def test_an_invalid_eps_is_named(good: Path) -> None:
    change(good, lambda record: replace(record, eps="8"))

    assert faults_of(good)[0].startswith("the threat model is not one: expected eps at most 1")


def test_other_weights_are_named(good: Path) -> None:
    change(good, lambda r: replace(r, model=replace(r.model, weights_digest="0" * 64)))

    (fault,) = faults_of(good)
    assert fault.startswith("the weights are not the record's: fmnist-sat-tiny-relu-s0 here has")


def test_other_images_are_named(good: Path) -> None:
    change(good, lambda r: replace(r, dataset=replace(r.dataset, digest="0" * 64)))

    assert faults_of(good) == [
        f"the images are not the record's: the first {N} of fashion-mnist here have another "
        "digest than 000000000000…"
    ]


def test_another_number_of_images_is_named(good: Path) -> None:
    change(good, lambda r: replace(r, dataset=replace(r.dataset, n=N - 1)))

    assert faults_of(good)[0] == f"there are {N} verdicts for {N - 1} images"


def test_more_images_than_the_data_set_has_are_named(good: Path) -> None:
    change(good, lambda r: replace(r, dataset=replace(r.dataset, n=70_000)))

    assert any("the images are not the record's" in fault for fault in faults_of(good))


@pytest.mark.parametrize("field", ["attacked", "broken"])
def test_changed_counts_of_a_stage_are_named(field: str, good: Path) -> None:
    def spoil(record: Record) -> Record:
        first = record.stages[0]
        more: Any = {field: getattr(first, field) + 1}
        return replace(record, stages=[replace(first, **more), record.stages[1]])

    change(good, spoil)

    (fault,) = faults_of(good)
    assert {"attacked": " attacked ", "broken": " broke "}[field] in fault


def test_a_stage_that_is_not_in_the_suite_is_named(good: Path) -> None:
    change(good, lambda r: replace(r, stages=[replace(r.stages[0], attack="x"), r.stages[1]]))

    assert "the stages are not those of the suite" in faults_of(good)


def test_a_changed_identity_is_named(good: Path) -> None:
    write_record(replace(read_record(good), identity="0" * 64), good)

    assert faults_of(good) == ["the identity is not that of the inputs: one of them was changed"]


def test_another_protocol_is_named(good: Path) -> None:
    change(good, lambda record: replace(record, protocol=0))

    assert "the record is of protocol 0, not 1 to 2" in faults_of(good)


# Records that cannot be checked


def test_a_missing_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SatbenchError, match=r"^expected a record at .*none\.json, which is missing"
    ):
        verify_record(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2}', '{"schema": 1}', "\0"])
def test_a_file_that_is_not_a_record_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(SatbenchError, match=r"record.*r\.json"):
        verify_record(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("verdicts", "abc"),
        ("stages", 3),
        ("model", []),
        ("dataset", None),
        ("suite", "x"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_or_named(key: str, value: object, good: Path) -> None:
    values = json.loads(good.read_text())
    values[key] = value
    good.write_text(json.dumps(values))

    try:
        faults = faults_of(good)
    except SatbenchError as error:
        faults = [str(error)]

    assert faults != []


def test_a_record_of_a_model_from_a_file_needs_the_name_of_its_model(good: Path) -> None:
    changes = {"source": "file", "name": "mine"}
    change(good, lambda r: replace(r, model=replace(r.model, **changes)))
    assert verify_record(good).faults == []  # its weights are known

    changes["weights_digest"] = "0" * 64
    change(good, lambda r: replace(r, model=replace(r.model, **changes)))
    with pytest.raises(SatbenchError, match=r"given as a file: name it with --model,"):
        verify_record(good)


def test_the_model_of_a_record_can_be_given_by_name(good: Path, shipped: LoadedModel) -> None:
    change(good, lambda r: replace(r, model=replace(r.model, source="file", name="mine")))

    assert verify_record(good, Given(shipped.info.name)).faults == []


def test_a_record_of_tensors_needs_the_users_images(good: Path) -> None:
    change(good, lambda r: replace(r, dataset=replace(r.dataset, name="tensors", split="user")))
    with pytest.raises(SatbenchError, match=r"a user's own images \(tensors\): give them with"):
        verify_record(good)
