"""Twenty kinds of tampering with a submitted record: ten upwards, ten downwards.

The review of a pull request refuses them, except two upward kinds that only an attack can find:
`satbench recheck` finds these, with the confidence that it states.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hostile.tampering import CAUGHT, TRUSTED, Forged, copy_of

from satbench.board.definition import BoardDefinition, board_definition, read_definition
from satbench.core.digests import digest_file
from satbench.core.stats.intervals import unseen_bound
from satbench.data import Dataset, load_dataset
from satbench.proofs.rechecking import Recheck, recheck_record
from satbench.records.rechecks import drawn_survivors
from satbench.records.record import inputs_of, parse_record, read_record, record_stem
from satbench.records.witnesses import find_witnesses, read_witnesses, witnesses_path
from satbench.submissions.manifest import Manifest, write_manifest
from satbench.submissions.packing import Packing, pack
from satbench.submissions.reviewing import review

MODEL = "fmnist-sat-tiny-relu-s1"
HIDDEN = ("all_witnesses_are_hidden", "what_autoattack_broke_is_hidden")
UPWARDS = (
    "a_broken_image_survives",
    "a_wrong_image_is_right",
    "a_broken_image_is_hidden_with_its_witness_but_not_the_digest",
    "a_part_of_a_suite_is_left_out",
    "steps_and_passes_are_inflated_together",
    "eps_is_raised",
    "flags_are_removed",
    "the_weights_are_others",
    *HIDDEN,
)
DOWNWARDS = (
    "a_survivor_is_broken",
    "a_right_image_is_wrong",
    "a_witness_is_out_by_two_millionths",
    "a_witness_is_the_clean_image",
    "a_witness_is_not_a_number",
    "a_witness_has_negative_pixels",
    "witnesses_are_swapped",
    "a_witness_is_there_twice",
    "a_witness_has_another_place",
    "eps_is_lowered",
)
BESIDE = (  # `verify` trusts these facts in a record; the review of a closed submission does not
    "the_seed_is_another",
    "a_replacement_is_invented_on_a_layer_that_is_there",
    "it_pretends_to_be_of_the_first_day",
)


@pytest.fixture(scope="module")
def images() -> Dataset:
    return load_dataset("fashion-mnist", "test", 500)


@pytest.fixture(autouse=True)
def _read_the_images_once(monkeypatch: pytest.MonkeyPatch, images: Dataset) -> None:
    monkeypatch.setattr("satbench.evaluation.given.load_dataset", lambda *_, **__: images)


@pytest.fixture(scope="module")
def original(images: Dataset) -> Forged:
    """Return the shipped record of PGD-50 and AutoAttack on a model with a flag."""
    (found,) = [
        path
        for path in board_definition("fashion-mnist-linf-0.1").records.glob(f"{MODEL}-*.json")
        if any(one.startswith("autoattack(") for one in json.loads(path.read_text())["suite"])
    ]
    values = json.loads(found.read_text())
    witnesses = read_witnesses(find_witnesses(found, values["witnesses_digest"]))
    return Forged(values, witnesses, images.pixels(np.arange(500)))


@pytest.fixture
def board(tmp_path: Path) -> BoardDefinition:
    """A board like the shipped one, with one suite and no record."""
    text = (board_definition("fashion-mnist-linf-0.1").folder / "board.toml").read_text()
    lines = [
        'suites = [["pgd-50", "autoattack"]]' if line.startswith("suites") else line
        for line in text.splitlines()
    ]
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "board.toml").write_text("\n".join(lines))
    return read_definition(tmp_path / "board" / "board.toml")


def submitted(forged: Forged, folder: Path) -> Path:
    """Write a careful cheat's submission: a consistent record, witnesses and manifest."""
    folder.mkdir()
    forged.write(folder / "record.json")
    record = parse_record((folder / "record.json").read_text(), "a test")
    path = folder / f"{record_stem(inputs_of(record))}.json"
    (folder / "record.json").rename(path)
    witnesses_path(folder / "record.json").rename(witnesses_path(path))
    files = {one.name: digest_file(one) for one in folder.iterdir()}
    write_manifest(Manifest("board", "closed", "a cheat", "shipped", files), folder)
    return path


def forged_by(kind: str, original: Forged) -> Forged:
    forged = copy_of(original)
    {**CAUGHT, **TRUSTED}[kind](forged)
    return forged


def test_there_are_ten_kinds_of_tampering_in_each_direction() -> None:
    assert len(set(UPWARDS)) == len(set(DOWNWARDS)) == 10


def test_an_honest_submission_is_not_refused(
    original: Forged, board: BoardDefinition, tmp_path: Path
) -> None:
    path = submitted(copy_of(original), tmp_path / "honest")
    done = review(path.parent, definition=board)
    asked = Packing((path,), "an honest one", tmp_path / "packed")

    assert done.refusals == ()
    assert len(done.confirmed) == 1
    assert pack(asked, board).refusals == ()


@pytest.mark.parametrize("kind", [*sorted(set(UPWARDS) - set(HIDDEN)), *DOWNWARDS, *BESIDE])
def test_tampering_is_refused(
    kind: str, original: Forged, board: BoardDefinition, tmp_path: Path
) -> None:
    path = submitted(forged_by(kind, original), tmp_path / "forged")
    done = review(path.parent, definition=board)

    assert done.refusals
    assert done.change is None
    assert all("\n" not in one for one in done.refusals)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", HIDDEN)
def test_recheck_finds_tampering_that_a_review_cannot_see(
    kind: str, original: Forged, board: BoardDefinition, tmp_path: Path
) -> None:
    path = submitted(forged_by(kind, original), tmp_path / "forged")
    assert review(path.parent, definition=board).refusals == ()
    honest, claimed = np.array(original.values["verdicts"]), read_record(path)
    hidden = np.flatnonzero((honest > 0) & (np.array(claimed.verdicts) == -1))
    attack = "pgd-10" if kind == "all_witnesses_are_hidden" else "apgd-t(steps=20,targets=2)"
    done = recheck_record(Recheck(path, 50, (attack,), seed=3))

    assert _images_needed(len(hidden), claimed.surviving()) <= 50
    assert set(done.broken) & set(hidden.tolist())


@pytest.mark.parametrize("kind", HIDDEN)
def test_a_recheck_sample_misses_all_hidden_images_in_at_most_5_percent(
    kind: str, original: Forged, tmp_path: Path
) -> None:
    path = submitted(forged_by(kind, original), tmp_path / "forged")
    honest, claimed = np.array(original.values["verdicts"]), read_record(path)
    hidden = set(np.flatnonzero((honest > 0) & (np.array(claimed.verdicts) == -1)).tolist())
    images = _images_needed(len(hidden), claimed.surviving())
    missed = sum(
        not hidden & set(drawn_survivors(claimed, images, seed).tolist()) for seed in range(400)
    )

    # At most 20 of 400 samples are expected to miss; 31 or more have a probability of 1 %.
    assert missed <= 31


def _images_needed(hidden: int, survivors: int) -> int:
    """Return the sample size that contains one of `hidden` images with 95 % confidence."""
    return next(n for n in range(1, survivors + 1) if unseen_bound(0, n, survivors) < hidden)
