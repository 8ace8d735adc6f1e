"""A challenge attacks only the survivors, and the judge checks a third party's images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from satbench.core.digests import digest_file
from satbench.core.errors import SatbenchError
from satbench.core.progress.receiver import NoProgress
from satbench.core.stats.intervals import confidence_sequence
from satbench.core.threat import Threat
from satbench.data import Dataset, load_dataset
from satbench.evaluation.run import Evaluation, run_evaluation
from satbench.models import load_model, request_model
from satbench.proofs.challenging import Challenge, Challenged, run_challenge
from satbench.proofs.merging import merge_files
from satbench.proofs.verification import verify_record
from satbench.records.record import Record, read_record, write_record
from satbench.records.witnesses import read_witnesses, witnesses_path

N = 40
WEAK, STRONG = "pgd-1", "pgd(steps=10)"


@pytest.fixture(autouse=True)
def _read_the_images_once(monkeypatch: pytest.MonkeyPatch, fashion: Dataset) -> None:
    for module in ("evaluation.given", "proofs.challenging"):
        monkeypatch.setattr(f"satbench.{module}.load_dataset", lambda *_, **__: fashion)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that evaluates the shipped model with one attack, and returns the record."""
    model = load_model(request_model("fmnist-sat-tiny-relu-s0"), 10)
    images = load_dataset("fashion-mnist", "test", N)
    out = tmp_path_factory.mktemp("made")

    @cache
    def make(attack: str) -> Path:
        evaluation = Evaluation(images, Threat.parse("linf:0.1"), [attack])
        return run_evaluation(model.module, model.info, evaluation, torch.device("cpu"), out).path

    return make


@pytest.fixture
def weak(made: Callable[[str], Path], tmp_path: Path) -> Path:
    """Return the path of a record of a weak attack, in a folder that a test may write to."""
    return copied(made(WEAK), tmp_path)


@pytest.fixture
def strong_images(made: Callable[[str], Path], fashion: Dataset) -> np.ndarray:
    """Return adversarial images of the strong attack, or clean ones where it failed."""
    images = fashion.pixels(np.arange(N))
    witnesses = read_witnesses(witnesses_path(made(STRONG)))
    images[witnesses.indices] = witnesses.images
    return images


def copied(path: Path, folder: Path) -> Path:
    for one in (path, witnesses_path(path)):
        (folder / one.name).write_bytes(one.read_bytes())
    return folder / path.name


def without_times(record: Record) -> Record:
    environment = replace(record.environment, finished="", clean_seconds=0, stage_seconds=[])
    return replace(record, environment=environment)


def handed_in(record: Path, images: Path) -> Challenged:
    return run_challenge(Challenge(record, images=images, by="a third party"))


def test_a_stronger_attack_lowers_the_record_and_proves_it(weak: Path) -> None:
    before = weak.read_bytes()
    done = run_challenge(Challenge(weak, (STRONG,), by="someone", seed=3))
    stage = done.record.stages[-1]

    assert done.record.surviving() < done.parent.surviving()
    assert (stage.attacked, stage.by) == (done.parent.surviving(), "someone")
    assert stage.broken == done.parent.surviving() - done.record.surviving()
    assert verify_record(done.path).faults == []
    assert (done.path.parent, weak.read_bytes()) == (weak.parent, before)


def test_a_challenge_breaks_the_same_images_as_the_attack_in_one_run(
    weak: Path, made: Callable[[str], Path]
) -> None:
    both = np.array(read_record(made(STRONG)).verdicts) > 0
    both |= np.array(read_record(weak).verdicts) > 0

    done = run_challenge(Challenge(weak, (STRONG,)))
    assert (np.array(done.record.verdicts) > 0).tolist() == both.tolist()


def test_a_challenge_that_breaks_no_image_makes_a_record(weak: Path) -> None:
    strong = run_challenge(Challenge(weak, (STRONG,)))
    done = run_challenge(Challenge(strong.path, ("pgd-1",), seed=1))

    assert done.record.verdicts == strong.record.verdicts
    assert len(done.record.suite) == 3
    assert verify_record(done.path).faults == []


def test_the_same_challenge_again_is_found(weak: Path) -> None:
    first = run_challenge(Challenge(weak, (STRONG,)))
    second = run_challenge(Challenge(weak, (STRONG,)))

    assert (first.found, second.found) == (False, True)
    assert second.record == first.record


def test_the_same_attack_and_seed_as_the_record_is_refused(weak: Path) -> None:
    with pytest.raises(SatbenchError, match=r"with seed 0; give another --seed"):
        run_challenge(Challenge(weak, (WEAK,)))


def test_a_stopped_challenge_continues_to_the_same_record(weak: Path, tmp_path: Path) -> None:
    class Stop(NoProgress):
        def advance(self, images: int, survivors: int) -> None:
            raise KeyboardInterrupt

    asked = Challenge(weak, (STRONG,), batch_size=10, out=tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        run_challenge(asked, Stop())
    assert list((tmp_path / "stopped" / ".runs").glob("*/001-*.npz"))

    whole = run_challenge(Challenge(weak, (STRONG,), batch_size=10))
    resumed = run_challenge(asked)
    assert without_times(resumed.record) == without_times(whole.record)


def test_a_record_that_does_not_verify_is_not_challenged(weak: Path) -> None:
    record = read_record(weak)
    write_record(replace(record, eps="0.2"), weak)
    with pytest.raises(SatbenchError, match=r"does not hold: the identity is not that of"):
        run_challenge(Challenge(weak, (STRONG,)))


def test_a_record_without_survivors_is_not_challenged(tmp_path: Path) -> None:
    model = load_model(request_model("fmnist-standard-tiny-relu-s0"), 10)
    images = load_dataset("fashion-mnist", "test", 5)
    evaluation = Evaluation(images, Threat.parse("linf:0.1"), [STRONG])
    cpu = torch.device("cpu")
    path = run_evaluation(model.module, model.info, evaluation, cpu, tmp_path).path
    with pytest.raises(SatbenchError, match=r"^nothing survives in "):
        run_challenge(Challenge(path, (WEAK,)))


def test_a_record_in_random_order_is_verified_and_challenged(
    tmp_path: Path, fashion: Dataset
) -> None:
    model = load_model(request_model("fmnist-sat-tiny-relu-s0"), 10)
    evaluation = Evaluation(fashion.first(60), Threat.parse("linf:0.1"), [WEAK], until=0.5)
    cpu = torch.device("cpu")
    path = run_evaluation(model.module, model.info, evaluation, cpu, tmp_path).path
    done = run_challenge(Challenge(path, (STRONG,)))
    sequence = done.record.sequential

    assert done.record.dataset.population == 60
    assert sequence is not None
    assert (sequence.low, sequence.high) == confidence_sequence(
        done.record.surviving(), done.record.n, 60
    )
    assert [verify_record(one).faults for one in (path, done.path)] == [[], []]

    write_record(replace(done.record, sequential=replace(sequence, high=1.0)), done.path)
    assert verify_record(done.path).faults == [
        "the interval of the sequence is not that of the survivors"
    ]


# A third party's images


def save(images: np.ndarray, path: Path) -> Path:
    if path.suffix == ".npy":
        np.save(path, images)
    elif path.suffix == ".npz":
        np.savez(path, x_adv=images)
    else:
        torch.save(torch.from_numpy(images), path)
    return path


@pytest.mark.parametrize("name", ["x.pt", "x.npy", "x.npz"])
def test_adversarial_images_from_a_file_break_their_images(
    name: str, weak: Path, strong_images: np.ndarray, made: Callable[[str], Path]
) -> None:
    file = save(strong_images, weak.parent / name)
    done = handed_in(weak, file)
    fallen = np.array(read_record(made(STRONG)).verdicts) > 0
    fallen |= np.array(done.parent.verdicts) > 0

    assert (np.array(done.record.verdicts) > 0).tolist() == fallen.tolist()
    assert done.record.suite[-1] == f"images(sha256={digest_file(file)})"
    assert (done.record.stages[-1].by, done.refused) == ("a third party", "")
    assert verify_record(done.path).faults == []


def test_float64_and_the_whole_test_set_are_accepted(
    weak: Path, strong_images: np.ndarray, fashion: Dataset
) -> None:
    whole = fashion.pixels(np.arange(len(fashion))).astype(np.float64)
    whole[:N] = strong_images
    done = handed_in(weak, save(whole, weak.parent / "x.npy"))

    assert done.record.surviving() < done.parent.surviving()


def test_uint8_images_are_divided_by_255(weak: Path, fashion: Dataset) -> None:
    clean = save(fashion.images[:N], weak.parent / "x.npy")
    done = handed_in(weak, clean)

    assert (done.record.verdicts, done.refused) == (done.parent.verdicts, "")


def test_a_named_tensor_in_a_file_is_found(weak: Path, strong_images: np.ndarray) -> None:
    file = weak.parent / "x.pt"
    torch.save({"adv_complete": torch.from_numpy(strong_images)}, file)

    assert handed_in(weak, file).record.surviving() < read_record(weak).surviving()


def test_images_that_are_not_allowed_do_not_count(weak: Path, strong_images: np.ndarray) -> None:
    survivor, other, last = np.flatnonzero(np.array(read_record(weak).verdicts) == -1)[:3]
    images = strong_images.copy()
    images[survivor] = 1 - images[survivor]
    images[other, 0, 0, 0] = 1.25
    images[last, 0, 0, 0] = np.nan
    done = handed_in(weak, save(images, weak.parent / "x.npy"))

    assert done.record.verdicts[survivor] == -1
    assert done.refused.startswith("3 of 40 images are not counted: 1 hold NaN or infinity, ")
    assert "1 leave [0, 1] by up to 0.25, 2 leave linf:0.1 by up to " in done.refused


def test_a_file_without_one_allowed_image_is_refused(weak: Path, fashion: Dataset) -> None:
    grey = fashion.images[:N].astype(np.float32)  # 0 to 255, as floats
    with pytest.raises(SatbenchError, match=r"^no image of .* counts: 40 of 40 images are not"):
        handed_in(weak, save(grey, weak.parent / "x.npy"))


def test_the_same_images_again_are_refused(weak: Path, strong_images: np.ndarray) -> None:
    file = save(strong_images, weak.parent / "x.npy")
    done = handed_in(weak, file)
    with pytest.raises(SatbenchError, match="already has these images"):
        run_challenge(Challenge(done.path, images=file, seed=1))


class _Code:
    """An object whose pickle would run code when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("code from a file was run",)


def test_code_in_a_file_is_never_run(weak: Path) -> None:
    torch.save(_Code(), weak.parent / "x.pt")
    np.save(weak.parent / "x.npy", np.array([_Code()], object), allow_pickle=True)
    np.savez(weak.parent / "x.npz", x=np.array([_Code()], object))
    for name in ("x.pt", "x.npy", "x.npz"):
        with pytest.raises(SatbenchError, match=r"^expected only tensors or arrays in "):
            handed_in(weak, weak.parent / name)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda x: x[:7], r"^expected 40 or 200 images of shape \(1, 28, 28\) in .*\(7, 1, 28, 28"),
        (lambda x: x[:, 0], r"got an array of shape \(40, 28, 28\)$"),
        (lambda x: x.astype(np.float16), r"float32, float64 or uint8 in .*, got float16$"),
    ],
)
def test_images_of_another_shape_or_dtype_are_refused(
    make: Callable[[np.ndarray], np.ndarray], said: str, weak: Path, strong_images: np.ndarray
) -> None:
    with pytest.raises(SatbenchError, match=said):
        handed_in(weak, save(make(strong_images), weak.parent / "x.npy"))


def test_a_missing_file_or_unknown_format_is_refused(weak: Path) -> None:
    with pytest.raises(SatbenchError, match=r"x\.npy, which is missing$"):
        handed_in(weak, weak.parent / "x.npy")
    with pytest.raises(SatbenchError, match=r"^expected adversarial images as \.pt, \.npy or"):
        handed_in(weak, weak)


# Merging


def test_a_merged_record_verifies_and_has_the_broken_images_of_both(
    weak: Path, made: Callable[[str], Path]
) -> None:
    strong = copied(made(STRONG), weak.parent)
    merged = merge_files([weak, strong])
    fallen = [np.array(read_record(path).verdicts) > 0 for path in (weak, strong)]

    assert (np.array(merged.record.verdicts) > 0).tolist() == (fallen[0] | fallen[1]).tolist()
    assert merged.before == tuple(read_record(path).surviving() for path in (weak, strong))
    assert verify_record(merged.path).faults == []


def test_a_record_given_twice_is_refused(weak: Path) -> None:
    with pytest.raises(SatbenchError, match="are the same record: give it once"):
        merge_files([weak, weak])


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (
            "pgd(step=50)",
            r"^pgd: expected a step of at most 2 eps under linf:0\.1, got 50: did you",
        ),
        ("foolbox.ddn", r"^expected l2 for foolbox\.ddn, got linf; take another attack"),
    ],
)
def test_an_attack_that_does_not_suit_the_record_is_refused(
    attack: str, said: str, weak: Path
) -> None:
    with pytest.raises(SatbenchError, match=said):
        run_challenge(Challenge(weak, (attack,)))
