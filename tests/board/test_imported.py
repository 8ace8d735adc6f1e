"""Imported rows: RobustBench's entries, the SAT paper's numbers, and smooth against ReLU."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from satbench.board.definition import board_definition
from satbench.board.imported.activations import activation_table, kind_of
from satbench.board.imported.observed import clustered_effect, smooth_against_relu
from satbench.board.imported.page import (
    observed,
    render_imported,
    render_imported_csv,
    render_imported_json,
)
from satbench.board.imported.robustbench import entry_of, import_robustbench, plain_entry
from satbench.board.imported.rows import Imported, ImportedRow, read_imported
from satbench.core.errors import SatbenchError

KNOWN = "Wang2023Better_WRN-28-10"
ENTRY = {
    "link": "https://arxiv.org/abs/0000.00001",
    "name": "A paper",
    "authors": "A. Author, B. Author",
    "additional_data": False,
    "number_forward_passes": 1,
    "dataset": "cifar10",
    "venue": "Nowhere 2026",
    "architecture": "WideResNet-28-10",
    "eps": "8/255",
    "clean_acc": "92.44",
    "reported": "67.31",
    "autoattack_acc": "67.31",
    "footnote": None,
    "unreliable": False,
}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes an entry with some fields changed; a field of None is left out."""

    def made(place: str, text: str | None = None, **changes: object) -> Path:
        values = {k: v for k, v in {**ENTRY, **changes}.items() if changes.get(k, 0) is not None}
        path = tmp_path / f"{place}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text or json.dumps(values), encoding="utf-8")
        return tmp_path

    return made


def row(name: str = "m", **changes: object) -> ImportedRow:
    plain = ImportedRow(name, "cifar10", "linf", "8/255", "A", "90.0", "AutoAttack", "50.00")
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_an_entry_becomes_a_row_of_mark_imported_with_n_unknown(write: Write) -> None:
    folder = write(f"cifar10/Linf/{KNOWN}", external="60.5", unreliable=True)
    (found,) = import_robustbench(folder, []).rows

    assert (found.name, found.dataset, found.norm, found.eps) == (
        *(KNOWN, "cifar10", "linf", "8/255"),
    )
    assert (found.clean, found.robust, found.lower) == ("92.44", "67.31", "60.5")
    assert (found.mark, found.n, found.doubted, found.extra_data) == ("imported", None, True, False)


def test_the_activation_comes_from_the_table_or_is_unknown(write: Write) -> None:
    write(f"cifar10/Linf/{KNOWN}")
    folder = write("cifar10/Linf/Nobody2026_WRN-28-10")
    rows = {one.name: one for one in import_robustbench(folder, []).rows}

    assert rows[KNOWN].activation == "silu"
    assert "robustbench/model_zoo/cifar10.py" in rows[KNOWN].activation_source
    assert rows["Nobody2026_WRN-28-10"].activation is None


def test_every_line_of_the_table_has_a_source_and_an_activation_of_ours() -> None:
    table = activation_table()

    assert len(table) > 150
    assert all(known.source.startswith("robustbench/model_zoo/") for known in table.values())
    assert {known.activation for known in table.values()} <= {"relu", "silu", "gelu", "pssilu"}


@pytest.mark.parametrize(
    ("place", "changes", "said"),
    [
        ("cifar10/Linf/a", {"clean_acc": 92.4}, "clean_acc: expected str, got float"),
        ("cifar10/Linf/a", {"clean_acc": "101"}, "clean_acc: expected percent"),
        ("cifar10/Linf/a", {"autoattack_acc": "=1+1"}, "autoattack_acc: expected percent"),
        ("cifar10/Linf/a", {"autoattack_acc": None}, "missing field autoattack_acc"),
        ("cifar10/Linf/a", {"additional_data": "no"}, "additional_data: expected bool"),
        ("cifar10/Linf/a", {"eps": "eight"}, "eps: expected"),
        ("cifar10/Linf/a", {"activation": "silu"}, "not known, activation"),
        ("cifar10/stickers/a", {}, "in the folder 'stickers'"),
        ("cifar10/corruptions/a", {"eps": None}, "missing field"),
    ],
)
def test_an_entry_that_is_wrong_is_left_out_and_named(
    write: Write, place: str, changes: dict[str, object], said: str
) -> None:
    write("cifar10/Linf/good")
    folder = write(place, **changes)
    left_out: list[str] = []

    assert [one.name for one in import_robustbench(folder, left_out).rows] == ["good"]
    assert len(left_out) == 1
    assert said in left_out[0]


def test_a_name_given_twice_is_accepted_only_with_equal_values(write: Write) -> None:
    text = json.dumps(ENTRY)
    write("cifar10/Linf/same", text=text.replace("{", '{"clean_acc": "92.44",', 1))
    folder = write("cifar10/Linf/other", text=text.replace("{", '{"clean_acc": "99.0",', 1))
    left_out: list[str] = []

    assert [one.name for one in import_robustbench(folder, left_out).rows] == ["same"]
    assert "'clean_acc' is given twice" in left_out[0]


def test_an_entry_of_many_names_is_read_within_a_second(write: Write) -> None:
    many = ",".join(f'"a{number}":1' for number in range(20_000))
    folder = write("cifar10/Linf/many", text="{" + many + ',"a0":1}')
    left_out: list[str] = []
    began = time.process_time()
    with suppress(SatbenchError):  # there is no other entry
        import_robustbench(folder, left_out)

    assert time.process_time() - began < 1


def test_a_folder_without_entries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match="found none"):
        import_robustbench(tmp_path, [])


def test_the_json_of_imported_rows_is_read_back(write: Write, tmp_path: Path) -> None:
    imported = import_robustbench(write(f"cifar10/Linf/{KNOWN}"), [])
    path = tmp_path / "imported.json"
    path.write_text(render_imported_json(imported), encoding="utf-8")

    assert read_imported(path) == imported


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"mark": "imported"', '"mark": "verified"', "invalid enum value 'verified'"),
        ('"67.31"', '"670"', "robust: expected percent"),
        ('"schema": 1', '"schema": 2', "schema 1"),
        ('"n": null', '"n": 0', "n: expected 1 or more"),
    ],
)
def test_a_file_of_imported_rows_that_claims_too_much_is_refused(
    write: Write, tmp_path: Path, old: str, new: str, said: str
) -> None:
    imported = import_robustbench(write(f"cifar10/Linf/{KNOWN}"), [])
    path = tmp_path / "imported.json"
    path.write_text(render_imported_json(imported).replace(old, new), encoding="utf-8")

    with pytest.raises(SatbenchError, match=said):
        read_imported(path)


def test_the_numbers_of_the_sat_paper_are_those_of_its_tables() -> None:
    (paper,) = board_definition("imagenet-linf-4-255").read_imported()
    said = {(one.name, one.attack): (one.clean, one.robust) for one in paper.rows}

    assert {one.mark for one in paper.rows} == {"imported"}
    assert {one.n for one in paper.rows} == {None}
    assert all(one.where for one in paper.rows)
    assert said["ReLU, smooth gradient in both", "PGD-200"] == ("68.9", "36.9")
    assert said["SILU", "PGD-200"] == ("69.73", "42.30")
    assert said["GELU, released weights", "PGD-50"] == ("69.9", "41.5")
    assert said["EfficientNet-L1, enhanced", "PGD-200"] == ("82.2", "58.6")


@pytest.mark.parametrize(
    ("activation", "beside", "kind"),
    [
        ("silu", (), "smooth"),
        ("gelu", ("relu",), "smooth"),
        ("relu", (), "relu"),
        ("silu", ("mean-sparse",), None),
        ("leaky-relu", (), None),
        (None, (), None),
    ],
)
def test_the_kind_of_a_network(
    activation: str | None, beside: tuple[str, ...], kind: str | None
) -> None:
    assert kind_of(activation, beside) == kind


def test_the_difference_is_that_of_the_means_and_the_interval_counts_papers() -> None:
    values = np.array([0.6, 0.62, 0.64, 0.61, 0.63, 0.5, 0.52, 0.54, 0.51, 0.53])
    treated = np.arange(10) < 5
    effect = clustered_effect(values, treated, [str(i) for i in range(10)])

    assert effect is not None
    assert effect.interval is not None
    assert effect.seeds == 10
    assert effect.mean == pytest.approx(0.1)
    # Each entry a paper: HC0 of two means, times 10/9.
    error = np.sqrt(10 / 9 * 2 * values[:5].var() / 5)
    assert effect.interval[1] - effect.mean == pytest.approx(2.2621571628 * error)


def test_one_paper_with_many_entries_is_one_paper() -> None:
    values = np.repeat([0.6, 0.7, 0.5, 0.65, 0.55, 0.4, 0.45, 0.5, 0.6, 0.3], 5)
    treated = np.repeat(np.arange(10) < 5, 5)
    papers = [str(i // 5) for i in range(50)]
    once = clustered_effect(values[::5], treated[::5], papers[::5])

    assert once is not None
    many = clustered_effect(values, treated, papers)
    assert many is not None
    assert many.seeds == once.seeds == 10
    assert many.interval == pytest.approx(once.interval)


def test_fewer_than_five_papers_of_a_kind_give_no_interval_and_are_not_shown() -> None:
    values = np.array([0.9] * 4 + [0.1] * 9)
    effect = clustered_effect(values, np.arange(13) < 4, [str(i) for i in range(13)])

    assert effect is not None
    assert (effect.interval, effect.p, effect.is_shown) == (None, None, False)


def test_within_strata_only_entries_of_both_kinds_are_compared() -> None:
    values = np.array([0.7, 0.6, 0.9, 0.1])
    treated = np.array([True, False, True, False])
    effect = clustered_effect(values, treated, list("abcd"), ["x", "x", "y", "z"])

    assert effect is not None
    assert effect.mean == pytest.approx(0.1)
    assert clustered_effect(values, treated, list("abcd"), list("wxyz")) is None


def test_the_interval_holds_the_truth_where_papers_share_their_noise() -> None:
    generator = np.random.default_rng(0)
    papers = np.repeat(np.arange(24), 3)
    treated = papers % 2 == 0
    held = []
    for _ in range(300):
        shared = generator.normal(0, 0.05, 24)[papers]
        values = 0.5 + shared + generator.normal(0, 0.01, 72)
        effect = clustered_effect(values, treated, [str(one) for one in papers])
        assert effect is not None
        assert effect.interval is not None
        held.append(effect.interval[0] <= 0 <= effect.interval[1])

    assert np.mean(held) > 0.91  # 0.945; entry by entry it would be 0.75


def test_models_without_an_adversary_and_unknown_ones_are_counted_and_left_out() -> None:
    rows = [
        row("Standard", activation="relu", robust="0.0"),
        row("a", activation="silu", robust="60.0", link="1"),
        row("b", activation="relu", robust="50.0", link="2"),
        row("c", link="3"),
        row("d", activation="silu", beside=("mean-sparse",), link="4"),
        row("e", activation="leaky-relu", link="5"),
    ]
    (found,) = smooth_against_relu([rows])

    assert (found.nominal, found.unknown, found.neither) == (1, 1, 2)
    assert found.means == {"smooth": 0.6, "relu": 0.5}
    assert found.entries == {"smooth": 1, "relu": 1}


def test_twins_are_of_one_paper_and_alike_but_for_the_activation() -> None:
    rows = [
        row("a", activation="silu", link="1"),
        row("b", activation="relu", link="1"),
        row("c", activation="relu", link="2"),
        row("d", activation="relu", link="1", extra_data=True),
    ]
    (found,) = smooth_against_relu([rows])

    assert [(one.name, other.name) for one, other in found.twins] == [("a", "b")]


def test_p_is_corrected_for_the_number_of_benchmarks() -> None:
    def rows(dataset: str, gain: float) -> list[ImportedRow]:
        return [
            row(
                f"{kind}{i}",
                dataset=dataset,
                activation=kind,
                robust=f"{50 + i + gain * (kind == 'silu'):.1f}",
                link=f"{kind}{i}",
            )
            for kind in ("silu", "relu")
            for i in range(6)
        ]

    (alone,) = smooth_against_relu([rows("x", 2.4)])
    first, _ = smooth_against_relu([rows("x", 2.4), rows("y", 2.4)])

    assert alone.crude is not None
    assert first.crude is not None
    assert alone.crude.counted is not None
    assert first.crude.counted == pytest.approx(2 * alone.crude.counted)


def test_a_page_and_a_csv_of_imported_rows_show_hostile_names_as_text() -> None:
    name = "<script>alert(1)</script> | [x](http://evil.example)\n=cmd()\x1b[2J"
    hostile = row(name, architecture=name, activation=name, attack=name, note=name, authors=name)
    plain = row("a", activation="b")
    page, calm = (
        render_imported(Imported("x", "y", "https://example.org", (one,)))
        for one in (hostile, plain)
    )

    assert "<script" not in page
    assert "\x1b" not in page + render_imported_csv(Imported("x", "y", "z", (hostile,)))
    assert len(page.splitlines()) == len(calm.splitlines())


@pytest.mark.skipif(
    "SATBENCH_MODEL_INFO" not in os.environ, reason="RobustBench's files are not here"
)
def test_every_entry_of_robustbench_has_the_shape_that_we_write() -> None:
    files = sorted(Path(os.environ["SATBENCH_MODEL_INFO"]).glob("*/*/*.json"))

    assert len(files) >= 236
    for path in files:
        told = json.loads(path.read_text(encoding="utf-8"))
        assert plain_entry(entry_of(told, str(path))) == told
    left_out: list[str] = []
    imported = import_robustbench(files[0].parents[2], left_out)
    assert (len(imported.rows), left_out) == (len(files), [])
    assert len(observed(imported)) == 4
