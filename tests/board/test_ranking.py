from __future__ import annotations

from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satbench.board.ranking import compare_with_relu, rank_rows, told_apart
from satbench.board.rows import make_groups, make_row
from satbench.core.stats.shown import Effect

FEW = settings(max_examples=20, deadline=None)


def _rows(make_record, *models: list[int]):
    """Build a row for each list of the images that survive (among 40)."""
    return [
        make_row([make_record([-1 if i in alive else 1 for i in range(40)], name=f"m{k}")])
        for k, alive in enumerate(map(set, models))
    ]


def _ranks(rows) -> dict[str, str]:
    return {row.model.name: str(row.rank) for row in rank_rows(rows)[0]}


def test_a_model_that_the_test_shows_to_be_worse_is_ranked_below(make_record) -> None:
    # 6 discordant images, all one way: p = 2 / 2**6 = 0.031.
    assert _ranks(_rows(make_record, range(16), range(10))) == {"m0": "1", "m1": "2"}


def test_models_that_the_test_does_not_distinguish_share_their_ranks(make_record) -> None:
    # 5 discordant images, all one way: p = 2 / 2**5 = 0.0625.
    assert _ranks(_rows(make_record, range(15), range(10))) == {"m0": "1–2", "m1": "1–2"}


def test_the_test_is_paired_by_image(make_record) -> None:
    # The counts 16 and 10 as above, but on other images: 16 against 10 discordant, p = 0.33.
    assert _ranks(_rows(make_record, range(16), range(20, 30))) == {"m0": "1–2", "m1": "1–2"}


def test_with_more_models_a_pair_is_harder_to_distinguish(make_record) -> None:
    # Holm: with a third model like the second there are three pairs, and 3 * 0.031 > 0.05.
    models = range(16), range(10), range(10)

    assert _ranks(_rows(make_record, *models)) == {"m0": "1–3", "m1": "1–3", "m2": "1–3"}


def test_a_rank_is_one_more_than_the_number_of_better_models(make_record) -> None:
    models = range(40), range(39), range(20), range(5)

    assert _ranks(_rows(make_record, *models)) == {"m0": "1–2", "m1": "1–2", "m2": "3", "m3": "4"}


def test_rows_are_ordered_by_best_known_accuracy_then_name(make_record) -> None:
    rows, _ = rank_rows(_rows(make_record, range(5), range(7), range(5)))

    assert [row.model.name for row in rows] == ["m1", "m0", "m2"]


@FEW
@given(
    st.lists(st.sets(st.integers(0, 39)), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_order_and_ranks_do_not_depend_on_the_order_of_the_rows(
    make_record, models, random
) -> None:
    rows = _rows(make_record, *models)
    expected = rank_rows(rows)
    random.shuffle(rows)

    assert expected == rank_rows(rows)


@FEW
@given(st.lists(st.sets(st.integers(0, 39)), min_size=1, max_size=4))
def test_a_place_is_among_the_ranks_and_ranks_do_not_fall(make_record, models) -> None:
    ranks = [row.rank for row in rank_rows(_rows(make_record, *models))[0]]

    assert all(rank.best <= place <= rank.worst for place, rank in enumerate(ranks, 1))
    assert [rank.best for rank in ranks] == sorted(rank.best for rank in ranks)
    assert [rank.worst for rank in ranks] == sorted(rank.worst for rank in ranks)


def test_distinguished_pairs_are_named_by_their_places(make_record) -> None:
    rows, count = rank_rows(_rows(make_record, range(5), range(40), range(20)))

    assert told_apart(rows) == [(0, 1), (0, 2), (1, 2)]
    assert count == 3


def _group_rows(make_record, activation: str, survivors: dict[int, int], **more):
    return [
        make_row(
            [
                make_record(
                    [-1] * count + [3] * (100 - count),
                    name=f"{activation}-{seed}",
                    activation=activation,
                    train_seed=seed,
                    **more,
                )
            ]
        )
        for seed, count in survivors.items()
    ]


def _compare(make_record, relu: dict[int, int], silu: dict[int, int]):
    rows = [*_group_rows(make_record, "relu", relu), *_group_rows(make_record, "silu", silu)]
    return compare_with_relu(make_groups(rows))


def test_an_activation_is_compared_with_relu_seed_by_seed_and_image_by_image(make_record) -> None:
    (pair,) = _compare(make_record, {0: 10, 1: 30, 2: 50}, {0: 11, 1: 32, 2: 53})
    effect = pair.effects["best_known"]

    # By hand: differences 1, 2, 3 points over seeds; 6 of 300 cells are 1, in 6 of 100 images.
    by_seed, by_image, by_cell = (
        1e-4 / 3,
        (6 / 9 - 100 * 0.0004) / 99 / 100,
        6 * 294 / 300 / 299 / 300,
    )
    error = sqrt(max(by_seed + by_image - by_cell, by_seed, by_image))
    ends = (0.02 - 4.30265 * error, 0.02 + 4.30265 * error)
    assert (effect.mean, effect.seeds) == (pytest.approx(0.02), 3)
    assert effect.interval == pytest.approx(ends, abs=1e-6)
    assert effect.adjusted == pytest.approx(effect.p)


def test_p_is_corrected_for_the_comparisons_of_a_column(make_record) -> None:
    relu = _group_rows(make_record, "relu", {0: 10, 1: 30, 2: 50})
    others = [
        _group_rows(make_record, name, {0: 14, 1: 35, 2: 54}) for name in ("silu", "gelu", "elu")
    ]
    alone = compare_with_relu(make_groups([*relu, *others[0]]))[0].effects["best_known"]
    among = compare_with_relu(make_groups([*relu, *others[0], *others[1], *others[2]]))[0].effects[
        "best_known"
    ]

    assert alone.p == among.p
    assert alone.adjusted == alone.p
    assert among.adjusted == pytest.approx(3 * alone.p)


def test_seeds_that_only_one_of_the_two_has_are_left_out(make_record) -> None:
    (pair,) = _compare(make_record, {0: 10, 1: 30}, {1: 32, 2: 90})

    assert pair.effects["best_known"] == Effect(pytest.approx(0.02), 1)


def test_groups_that_share_no_seed_are_not_compared(make_record) -> None:
    assert _compare(make_record, {0: 10}, {1: 12}) == []


def test_a_column_that_no_shared_seed_has_is_not_compared(make_record) -> None:
    rows = _group_rows(make_record, "relu", {0: 10})
    other = make_record([-1] * 100, ["square(queries=1)"], name="s", activation="silu")
    (pair,) = compare_with_relu(make_groups([*rows, make_row([other])]))

    assert "autoattack" not in pair.effects


@pytest.mark.parametrize("recipe", ["sat-longer", "standard", None])
def test_groups_that_were_trained_otherwise_are_not_compared(make_record, recipe) -> None:
    relu = _group_rows(make_record, "relu", {0: 10})
    silu = _group_rows(make_record, "silu", {0: 12}, recipe=recipe)

    assert compare_with_relu(make_groups([*relu, *silu])) == []


def test_groups_of_unknown_training_are_not_compared(make_record) -> None:
    rows = [_group_rows(make_record, name, {0: 10}, recipe=None) for name in ("relu", "silu")]

    assert compare_with_relu(make_groups([*rows[0], *rows[1]])) == []
