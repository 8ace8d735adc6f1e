"""The page of a model: its numbers, its records, and pictures of broken images."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from satbench.board.board import build_board
from satbench.board.definition import board_definition
from satbench.board.rows import COLUMNS
from satbench.core.content import content_folder
from satbench.data import load_dataset
from satbench.records.flags import Flag
from satbench.records.record import Diagnosis, Record, parse_record, write_record
from satbench.records.witnesses import (
    Witnesses,
    find_witnesses,
    read_witnesses,
    witnesses_path,
    write_witnesses,
)
from satbench.website.board_page import SiteBoard
from satbench.website.card_facts import shipped_cards
from satbench.website.data_table import DataTable, Fact
from satbench.website.known import KnownBeside
from satbench.website.looks import Looks
from satbench.website.model_page import (
    SiteContext,
    SiteModel,
    model_values,
    record_files,
    site_models,
)
from satbench.website.pictures import MOST_SIDE, Pictures, picture_address, shown_record
from satbench.website.record_part import record_path, record_values, shares_of

SHIPPED = "fmnist-sat-tiny-relu-s0"


def models_of(*records: Record) -> list[SiteModel]:
    built = build_board(records).benchmarks
    return site_models(SiteBoard(f"b{k}", one) for k, one in enumerate(built))


def cells(table: DataTable, key: str) -> list[str]:
    place = [column.key for column in table.columns].index(key)
    return [row[place].text for row in table.rows]


@pytest.fixture(scope="module")
def site() -> SiteContext:
    """The context of pages, without pictures."""
    return SiteContext(shipped_cards(), KnownBeside(), Looks(["sat", "fmnist-sat"]))


@pytest.fixture(scope="module")
def shipped() -> list[Record]:
    """The records of one model on the shipped board."""
    found = board_definition("fashion-mnist-linf-0.1").read_records()
    return [one for one in found if one.model.name == SHIPPED]


def test_a_model_on_two_boards_has_one_page(small_records: Sequence[Record]) -> None:
    models = models_of(*small_records)
    (twice,) = (one for one in models if len(one.rows) == 2)

    assert twice.model.name == "sat-tiny-relu-s0"
    assert len({one.place for one in models}) == len(models) == 8
    assert len(twice.records) == 4


def test_the_numbers_equal_those_in_the_row_of_the_board(make_record, site: SiteContext) -> None:
    (model,) = models_of(make_record([0, 1, 1, 3, -1, -1, -1, -1]))
    (part,) = model_values(model, site)["boards"]
    row = model.rows[0][1]

    measured = ("clean", "pgd50", "autoattack", "best_known")
    assert cells(part["table"], "what") == [COLUMNS[column] for column in measured]
    assert cells(part["table"], "right") == ["7 of 8", "5 of 8", "4 of 8", "4 of 8"]
    assert cells(part["table"], "percent") == ["87.5", "62.5", "50.0", "50.0"]
    low, high = (f"{100 * end:.1f}" for end in row.best_known.interval)
    assert cells(part["table"], "interval")[-1] == f"{low} to {high}"


def test_the_shares_count_images_by_the_attack_that_broke_them(make_record) -> None:
    record = make_record([0, 1, 1, 3, -1, -1, -1, -1])
    shares = shares_of(record)
    stages = record_values(record, 1)["stages"]

    assert [(one.name, one.images) for one in shares] == [
        ("wrong without an attack", 1),
        ("pgd", 2),
        ("autoattack/square", 1),
        ("survived", 4),
    ]
    assert sum(one.share for one in shares) == 1
    assert cells(stages, "broken") == ["1", "2", "0", "1"]
    assert cells(stages, "left") == ["87.5", "62.5", "62.5", "50.0"]
    assert cells(stages, "passes") == ["1", "15.0", "15.0", "15.0"]


def test_every_record_is_copied_byte_by_byte(small_records: Sequence[Record]) -> None:
    files = record_files(models_of(*small_records))

    assert len(files) == len(small_records)
    assert sorted(files.values()) == sorted(one.to_json() for one in small_records)
    for place, text in files.items():
        assert place == f"records/{parse_record(text, place).identity[:16]}.json"


def test_the_copies_of_shipped_records_equal_the_files(shipped: list[Record]) -> None:
    files = record_files(models_of(*shipped))

    assert {path.read_text() for path in (one.path for one in shipped) if path} == set(
        files.values()
    )


def test_commands_name_the_record_relative_to_the_checkout(shipped: list[Record]) -> None:
    for number, record in enumerate(shipped):
        told = record_values(record, number)["commands"]
        path = record_path(record)
        assert (content_folder("leaderboard").parent / path).is_file()
        assert [line.split()[1] for line in told] == [
            *("show", "verify", "recheck", "reproduce", "challenge")
        ]
        assert all(line.split()[2] == path for line in told)


def test_the_path_of_a_record_shows_no_folders_of_this_machine(make_record, tmp_path: Path) -> None:
    record = replace(make_record([1]), path=tmp_path / "my results" / "a b.json")

    assert record_path(record) == "my results/a b.json"
    assert record_values(record, 1)["commands"][1] == "satbench verify 'my results/a b.json'"


def test_the_page_distinguishes_flags_no_flags_and_no_diagnosis(
    make_record, site: SiteContext
) -> None:
    flag = Flag("training-data", 3, 3, "they are those trained on", "take others")
    plain = make_record([0, 1, -1])
    for diagnosis, flags, looked in (
        (None, [], False),
        (Diagnosis([], 1, 1), [], True),
        (Diagnosis([flag], 1, 1), [flag], True),
    ):
        (model,) = models_of(replace(plain, diagnosis=diagnosis))
        values = model_values(model, site)
        (record,) = values["records"]
        (told,) = (one.text for one in record["facts"] if one.name == "Diagnosis")

        assert (values["flags"], values["diagnosed"]) == (flags, looked)
        assert ("nobody" in told, "training-data" in told) == (not looked, bool(flags))


def test_the_card_of_a_shipped_model_is_on_its_page(
    shipped: list[Record], site: SiteContext
) -> None:
    (model,) = models_of(*shipped)
    values = model_values(model, site)
    told: dict[str, Fact] = {one.name: one for one in (*values["about"], *values["training"])}

    assert told["SHA-256 of the weights"].text == shipped[0].model.weights_digest
    assert told["Seed"].text == "0"
    assert told["Recipe"].text.startswith("fmnist-sat: ")
    assert values["training_command"].startswith("satbench train --recipe fmnist-sat")
    assert values["evaluate"] == f"satbench eval --model {SHIPPED}"


def test_a_model_without_a_card_shows_the_facts_in_its_records(
    make_record, site: SiteContext
) -> None:
    (model,) = models_of(make_record([1, -1], source="file"))
    values = model_values(model, site)

    assert values["has_card"] is False
    assert {one.name: one.text for one in values["training"]}["recipe"] == "sat"
    assert values["evaluate"] == ""


# Pictures


def pixels(address: str) -> np.ndarray:
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_the_pictures_are_those_of_the_strongest_record(shipped: list[Record]) -> None:
    shown = shown_record(shipped)
    assert shown is not None
    grid = Pictures(3).grid(shown)

    assert shown.surviving() == min(one.surviving() for one in shipped)
    assert grid is not None
    assert len(grid.triples) == 3
    for one in grid.triples:
        clean, adversarial = (pixels(each).astype(int) for each in (one.clean, one.adversarial))
        assert one.label != one.predicted
        assert shown.verdicts[one.index] > 0
        assert clean.shape == adversarial.shape == (28, 28)
        assert 0 < np.abs(clean - adversarial).max() <= round(0.1 * 255) + 1
        assert grid.factor * 0.1 == pytest.approx(0.5)
        grey = pixels(one.perturbation)[clean == adversarial]
        assert np.abs(grey - 127.5).max() < grid.factor


def test_a_record_without_witnesses_has_no_picture(shipped: list[Record], tmp_path: Path) -> None:
    moved = replace(shipped[0], path=tmp_path / "r.json")

    assert Pictures(2).grid(moved) is None
    assert shown_record([replace(shipped[0], path=None)]) is None


@pytest.mark.parametrize("lie", ["nothing changed", "its own verdict"])
def test_an_unbroken_image_is_not_shown_as_broken(
    shipped: list[Record], tmp_path: Path, lie: str
) -> None:
    strongest = shown_record(shipped)
    assert strongest is not None
    assert strongest.path is not None
    held = read_witnesses(find_witnesses(strongest.path, strongest.witnesses_digest))
    images, verdicts = held.images, list(strongest.verdicts)
    if lie == "nothing changed":
        images = load_dataset("fashion-mnist", "test", strongest.n).pixels(held.indices)
    else:
        verdicts = [-1] * strongest.n
    false = Witnesses(held.indices, images)
    path = tmp_path / "records" / "r.json"
    record = replace(strongest, witnesses_digest=false.digest, verdicts=verdicts, path=path)
    write_record(record, path)
    write_witnesses(false, witnesses_path(path))

    assert Pictures(2).grid(record) is None


def test_large_pictures_are_reduced_and_keep_their_colours() -> None:
    image = np.zeros((3, 300, 150), np.float32)
    image[0] = 1

    small = pixels(picture_address(image))
    assert small.shape == (MOST_SIDE, MOST_SIDE // 2, 3)
    assert small[5, 5].tolist() == [255, 0, 0]
