"""A submission is packed, reviewed, described and accepted."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import satbench
from satbench.board.board import defined_board
from satbench.board.definition import BoardDefinition
from satbench.core.digests import digest_file
from satbench.core.errors import SatbenchError
from satbench.core.registry import Entry
from satbench.evaluation.given import Given
from satbench.model_zoo.card import read_card, write_card
from satbench.model_zoo.weights import save_weights
from satbench.models import FileOptions, load_model, request_model
from satbench.networks.registry import ACTIVATIONS
from satbench.proofs.verification import verify_record
from satbench.records.record import identity_of, inputs_of, read_record, record_stem, write_record
from satbench.records.witnesses import witnesses_path
from satbench.submissions import accepting
from satbench.submissions.accepting import accept, go_on
from satbench.submissions.comment import render_review
from satbench.submissions.manifest import Manifest, read_manifest, write_manifest
from satbench.submissions.pull_request import review_pull_request
from satbench.submissions.reviewing import review


def reseal(folder: Path, **changed: Any) -> None:
    """Write the manifest again with the present digests of the files."""
    files = {
        p.name: digest_file(p) for p in sorted(folder.iterdir()) if p.name != "submission.json"
    }
    write_manifest(replace(read_manifest(folder), files=files, **changed), folder)


def test_a_submission_of_record_witnesses_card_and_weights_can_be_accepted(
    packer, own_record: Path, board: BoardDefinition
) -> None:
    done = packer()
    record = read_record(own_record)

    assert done.refusals == ()
    assert {path.name for path in done.folder.iterdir()} == {
        "submission.json",
        "card.json",
        "weights.safetensors",
        own_record.name,
        witnesses_path(own_record).name,
    }
    assert [one.surviving for one in done.confirmed] == [record.surviving()]
    assert done.change is not None
    assert (done.change.models, done.change.before) == (2, None)
    assert done.change.row.best_known.count == record.surviving()
    assert done.change.row.mark == "unverified"
    assert review(done.folder, definition=board) == done


def test_an_accepted_submission_is_on_the_board_and_in_the_zoo_and_verifies(
    packer, board: BoardDefinition, tmp_path: Path
) -> None:
    done = packer()
    accept(done, board, tmp_path / "zoo")
    (path,) = board.records.glob("mine-*.json")

    assert done.change is not None
    assert done.change.row.best_known in [
        row.best_known for row in defined_board(board).benchmarks[0].rows
    ]
    weights = tmp_path / "zoo" / "weights" / "mine.safetensors"
    options = FileOptions("tiny(width=8)", "relu")
    assert verify_record(path, Given(str(weights), file=options)).confirmed
    assert read_card(tmp_path / "zoo" / "cards" / "mine.json").weights == weights.name
    with pytest.raises(SatbenchError, match="exists already"):
        accept(done, board, tmp_path / "zoo")


@pytest.mark.parametrize("step", range(6))
def test_an_acceptance_stopped_at_any_step_can_be_completed(
    packer, board: BoardDefinition, step: int, monkeypatch, tmp_path: Path
) -> None:
    done, steps = packer(), 0

    def stop(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps > step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for name in ("write_text", "copy_file", "write_card"):
            kept = getattr(accepting, name)
            patch.setattr(accepting, name, lambda *two, kept=kept: (stop(), kept(*two)))
        with contextlib.suppress(KeyboardInterrupt):
            accept(done, board, tmp_path / "zoo")
    rest = go_on(done.folder, board, tmp_path / "zoo") if 0 < step < 5 else None

    assert (rest is None) == (step in (0, 5))
    if step:
        assert len(list(board.records.glob("mine-*.json"))) == 1
        assert (tmp_path / "zoo" / "cards" / "mine.json").is_file()
        assert (tmp_path / "zoo" / "weights" / "mine.safetensors").is_file()
    assert not (board.folder / accepting.BEGUN).exists()
    assert go_on(done.folder, board, tmp_path / "zoo") is None


def test_no_other_submission_is_accepted_during_an_unfinished_acceptance(
    packer, board: BoardDefinition, tmp_path: Path
) -> None:
    done = packer()
    (board.folder / accepting.BEGUN).write_text("0\nanother\n")
    with pytest.raises(SatbenchError, match="satbench review another --accept"):
        accept(done, board, tmp_path / "zoo")
    assert go_on(done.folder, board, tmp_path / "zoo") is None
    assert not (tmp_path / "zoo").exists()


def test_a_second_submission_of_the_same_run_is_refused(
    packer, board: BoardDefinition, tmp_path: Path
) -> None:
    accept(packer(), board, tmp_path / "zoo")
    again = packer(out=tmp_path / "again")

    assert any("same identity" in one for one in again.refusals)


def test_the_open_division_accepts_weights_by_digest_and_address(
    packer,
) -> None:
    closed = packer(with_weights=False, url="https://example.org/w")
    shutil.rmtree(closed.folder)
    opened = packer(with_weights=False, url="https://example.org/w", division="open")

    assert len(closed.refusals) == 1
    assert "expected weights in the folder" in closed.refusals[0]
    assert (opened.refusals, opened.confirmed, len(opened.notes)) == ((), (), 1)
    assert not (opened.folder / "weights.safetensors").exists()


def test_the_open_division_accepts_a_challenge_that_lowers_a_row(
    packer, board: BoardDefinition, shipped_record: Path, tmp_path: Path
) -> None:
    stronger = satbench.challenge(
        shipped_record, attacks="pgd-20", by="a tester", out=tmp_path / "new"
    )
    given = {"records": (stronger.path,), "model": "", "out": tmp_path / "stronger"}
    closed = packer(**given)
    shutil.rmtree(closed.folder)
    opened = packer(**given, division="open")

    assert any("no suite of the board" in one for one in closed.refusals)
    assert opened.refusals == ()
    assert opened.manifest is not None
    assert opened.manifest.model == "shipped"
    assert opened.change is not None
    assert opened.change.before is not None
    assert opened.change.row.best_known.count == stronger.surviving()
    assert opened.change.row.best_known.count <= opened.change.before.best_known.count


def test_a_superseded_record_leaves_the_table_but_is_kept(
    packer, board: BoardDefinition, shipped_record: Path, tmp_path: Path
) -> None:
    old = read_record(shipped_record).identity
    silent = packer(supersedes=(old,))
    shutil.rmtree(silent.folder)
    unknown = packer(supersedes=("0" * 64,), note="why")
    shutil.rmtree(unknown.folder)
    told = packer(supersedes=(old,), note="its model was withdrawn")
    accept(told, board, tmp_path / "zoo")

    assert [len(one.refusals) for one in (silent, unknown, told)] == [1, 1, 0]
    assert [path.name for path in board.superseded.glob("*.json")] == [shipped_record.name]
    assert [row.model.name for row in defined_board(board).benchmarks[0].rows] == ["mine"]


def test_the_review_comment_shows_the_row_and_escapes_names(packer, board: BoardDefinition) -> None:
    done = packer(by="<b>x</b> [a](https://evil.example)", note="\u202ehidden")
    assert any("printable" in one for one in done.refusals)
    shutil.rmtree(done.folder)
    done = packer(by="<b>x</b> [a](https://evil.example)")
    comment = render_review(done)

    assert "can be accepted" in comment
    assert "<b>" not in comment
    assert "https://" not in comment
    assert f"{100 * done.change.row.best_known.value:.1f}" in comment
    assert "is refused" in render_review(replace(done, refusals=("<script>",)))
    assert "<script>" not in render_review(replace(done, refusals=("<script>",)))


def _edit(name: str) -> Any:
    def edited(folder: Path) -> None:
        path = folder / name if "*" not in name else next(folder.glob(name))
        path.write_bytes(path.read_bytes().replace(b"e", b"f", 1))

    return edited


def _add(name: str) -> Any:
    return lambda folder: (folder / name).write_text("{}")


def _link(folder: Path) -> None:
    (folder / "card.json").unlink()
    os.symlink("/etc/passwd", folder / "card.json")


def _manifest(**changed: Any) -> Any:
    def edited(folder: Path) -> None:
        path = folder / "submission.json"
        values = json.loads(path.read_text())
        for name, value in changed.items():
            values[name] = {**values["files"], **value} if name == "files" else value
        path.write_text(json.dumps(values))

    return edited


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_edit("card.json"), "changed after it was packed"),
        (_edit("*.witnesses.npz"), "changed after it was packed"),
        (_add("setup.py"), "which the manifest does not name"),
        (_link, "a link or a folder"),
        (lambda folder: (folder / "rechecks").mkdir(), "a link or a folder"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "a file that is missing"),
        (_manifest(files={"../../x.json": "0" * 64}), "a file in another folder"),
        (_manifest(files={"/etc/passwd": "0" * 64}), "a file in another folder"),
        (_manifest(board="../../etc"), "board"),
        (_manifest(public="evil:make", model="public"), "expected robustbench"),
        (_manifest(extra=1), "not known"),
        (_manifest(by="\x1b[31mred"), "printable"),
        (_manifest(by="x" * 201), "by"),
        (_manifest(division="mine"), "division"),
        (lambda folder: (folder / "submission.json").write_text("["), "not JSON"),
        (lambda folder: (folder / "submission.json").unlink(), "missing"),
    ],
    ids=range(16),
)
def test_a_folder_that_changed_after_packing_is_refused(packer, spoil: Any, said: str) -> None:
    folder = packer().folder
    spoil(folder)
    done = review(folder)

    assert done.refusals
    assert said in " ".join(done.refusals)
    assert done.change is None


def test_a_card_that_contradicts_the_record_or_takes_a_used_name_is_refused(
    packer, board: BoardDefinition
) -> None:
    folder = packer().folder
    card = read_card(folder / "card.json")
    for changed, said in (
        ({"name": "fmnist-sat-tiny-relu-s0"}, "a shipped model"),
        ({"weights_digest": "0" * 64}, "the card says weights_digest"),
        ({"activation": "silu"}, "the card says activation"),
        ({"licence": " "}, "licence"),
        ({"weights": "other.safetensors"}, "expected weights.safetensors"),
        ({"url": "https://evil.example/w"}, "no address"),
    ):
        write_card(replace(card, **changed), folder / "card.json")  # type: ignore[arg-type]
        reseal(folder)
        assert said in " ".join(review(folder, definition=board).refusals)


def test_a_shipped_model_under_another_name_is_refused(
    packer, shipped_record: Path, board: BoardDefinition, tmp_path: Path
) -> None:
    """The submission hides a duplicate: a renamed model that is already on the board."""
    folder = packer().folder
    record = replace(read_record(shipped_record))
    renamed = replace(record, model=replace(record.model, name="mine", source="user-zoo"))
    for path in folder.glob("mine-*"):
        path.unlink()
    stem = shipped_record.stem.replace("fmnist-sat-tiny-relu-s0", "mine", 1)
    write_record(renamed, folder / f"{stem}.json")
    shutil.copy(witnesses_path(shipped_record), folder / f"{stem}.witnesses.npz")
    card = read_card(folder / "card.json")
    write_card(replace(card, weights_digest=record.model.weights_digest), folder / "card.json")
    reseal(folder)
    done = review(folder, definition=board)

    assert any("already ships" in one for one in done.refusals)
    assert any("same identity" in one for one in done.refusals)


@pytest.mark.parametrize(
    "name", ["../../evil", "a/b", "<b>x</b>", "\x1b[31mred", "\u202etxt", "a b", "", "-x"]
)
def test_a_name_with_path_markup_or_control_characters_is_refused(
    packer, own_record: Path, board: BoardDefinition, name: str, tmp_path: Path
) -> None:
    folder = packer().folder
    record = read_record(folder / own_record.name)
    named = replace(record, model=replace(record.model, name=name))
    for path in folder.glob("mine-*"):
        path.rename(folder / path.name.replace(own_record.stem, record_stem(inputs_of(named))))
    write_record(named, folder / f"{record_stem(inputs_of(named))}.json")
    write_card(replace(read_card(folder / "card.json"), name=name), folder / "card.json")
    reseal(folder)
    done = review(folder, definition=board)

    assert any("model's name" in one for one in done.refusals)
    with pytest.raises(SatbenchError, match="refused"):
        accept(done, board, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_a_card_with_a_plugins_activation_is_refused_without_importing_the_plugin(
    packer, own_record: Path, board: BoardDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = packer().folder
    theirs = Entry("theirs", "no.such.module:thing", "", plugin="some-plugin")
    monkeypatch.setitem(ACTIVATIONS._entries, "theirs", theirs)
    record, card = read_record(folder / own_record.name), read_card(folder / "card.json")
    changed = replace(record, model=replace(record.model, activation="theirs"))
    changed = replace(changed, identity=identity_of(inputs_of(changed)))
    for path in folder.glob("mine-*"):
        path.rename(folder / path.name.replace(own_record.stem, record_stem(inputs_of(changed))))
    write_record(changed, folder / f"{record_stem(inputs_of(changed))}.json")
    write_card(replace(card, activation="theirs"), folder / "card.json")
    reseal(folder)

    (refusal,) = review(folder, definition=board).refusals
    assert refusal.startswith("card.json: the activation is of the plug-in some-plugin")


def test_a_shipped_model_cannot_be_submitted_under_a_new_name(
    packer, shipped_record: Path, board: BoardDefinition, tmp_path: Path
) -> None:
    record = read_record(shipped_record)
    renamed = replace(record, model=replace(record.model, name="super-robust", source="file"))
    path = tmp_path / f"{record_stem(inputs_of(renamed))}.json"
    write_record(renamed, path)
    shutil.copy(witnesses_path(shipped_record), witnesses_path(path))
    for old in board.records.iterdir():
        old.unlink()
    done = packer(records=(path,), model="")

    assert len(done.refusals) == 1
    assert "fmnist-sat-tiny-relu-s0" in done.refusals[0]


def test_weights_of_another_model_are_refused(packer, board: BoardDefinition) -> None:
    from satbench.model_zoo.card import find_card

    folder = packer().folder
    shutil.copy(find_card("fmnist-sat-tiny-relu-s1")[1], folder / "weights.safetensors")
    reseal(folder)

    assert review(folder, definition=board).refusals


def test_two_records_of_one_identity_or_of_two_models_are_refused(
    packer, own_record: Path, shipped_record: Path
) -> None:
    with pytest.raises(SatbenchError, match="two records have the identity"):
        packer(records=(own_record, own_record))
    done = packer(records=(own_record, shipped_record))
    assert any("two models" in one for one in done.refusals)


def test_a_pull_request_may_change_only_its_own_folder(
    packer, board: BoardDefinition, tmp_path: Path
) -> None:
    packer()
    changed = tmp_path / "changed"
    names = [f"submissions/mine/{path.name}" for path in (tmp_path / "submissions/mine").iterdir()]

    def reviewed(*more: str) -> tuple[str, ...]:
        changed.write_text("".join(f"{name}\0" for name in (*names, *more)))
        return review_pull_request(tmp_path, changed, definition=board).refusals

    assert reviewed() == ()
    for stray in (
        "leaderboard/small/rechecks/x.json",
        "satbench/__init__.py",
        ".github/workflows/submission.yml",
        "submissions/mine/rechecks/x.json",
        "submissions/../x",
        "submissions/other/x.json",
        "line\nbreak",
    ):
        assert len(reviewed(stray)) >= 1, stray


def test_a_record_of_an_old_schema_is_refused(
    packer, own_record: Path, board: BoardDefinition
) -> None:
    folder = packer().folder
    path = folder / own_record.name
    values = json.loads(path.read_text())
    values |= {"schema": 1, "protocol": 1, "diagnosis": None}
    values["environment"]["finished"] = "2026-11-24T01:00:00+00:00"
    path.write_text(json.dumps(values))
    reseal(folder)

    assert any("those of new records" in one for one in review(folder, definition=board).refusals)
    assert isinstance(read_manifest(folder), Manifest)


def test_an_existing_folder_is_not_overwritten(packer) -> None:
    packer()
    with pytest.raises(SatbenchError, match="does not exist yet"):
        packer()


def test_a_public_model_is_checked_only_if_fetching_is_allowed_and_its_name_is_right(
    packer, board: BoardDefinition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A folder of this name replaces the Hub, because a test downloads nothing.
    (tmp_path / "org" / "net").mkdir(parents=True)
    loaded = load_model(request_model("fmnist-sat-tiny-silu-s0"), 10)
    assert loaded.card is not None
    save_weights(loaded.module, tmp_path / "org" / "net" / loaded.card.weights)
    write_card(loaded.card, tmp_path / "org" / "net" / "satbench.json")
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {"x": "fashion-mnist", "n_examples": 60, "norm": "linf", "eps": "0.1"}
    made = satbench.evaluate(
        "hf:org/net", attacks=["pgd-1", "pgd-10"], out=tmp_path / "hf", **given
    )
    done = packer(records=(made.path,), model="hf:org/net")
    unasked = review(done.folder, definition=board)

    assert (done.refusals, done.notes, len(done.confirmed)) == ((), (), 1)
    assert (unasked.refusals, len(unasked.notes), unasked.confirmed) == ((), 1, ())
    made_up = replace(made, model=replace(made.model, name="super-robust"))
    for path in done.folder.glob("fmnist-*"):
        path.rename(
            done.folder / path.name.replace(made.path.stem, record_stem(inputs_of(made_up)))
        )
    write_record(made_up, done.folder / f"{record_stem(inputs_of(made_up))}.json")
    reseal(done.folder)
    assert any(
        "super-robust" in one for one in review(done.folder, fetch=True, definition=board).refusals
    )
