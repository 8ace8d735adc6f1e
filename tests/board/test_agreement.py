from __future__ import annotations

from dataclasses import replace

from satbench.board.agreement import BenchmarkAgreement, agreement_of, render_agreements
from satbench.board.cost import ModelCost, cost_of
from satbench.records.attack_run import attack_runs

PGD50 = "pgd(steps=50,step=eps/4,restarts=1,start=uniform,keep=any)"
AUTOATTACK = "autoattack(version=standard,block=100)"
REFERENCE = "autoattack-reference(version=standard,block=100)"


def _agreement(*records):
    return agreement_of(attack_runs(records))


def test_images_that_survived_one_and_not_the_other_differ(make_record) -> None:
    ours = make_record([0, 1, -1, -1, 2], [AUTOATTACK])
    reference = make_record([0, -1, 1, -1, 1], [REFERENCE])

    assert 2 == _agreement(ours, reference).differing


def test_autoattack_of_protocol_1_is_a_reference(make_record) -> None:
    ours = make_record([0, 1, -1])
    reference = replace(make_record([0, 1, 1]), protocol=1, identity="old")

    assert (2 / 3 - 1 / 3, 1) == (
        _agreement(ours, reference).ours.accuracy,
        _agreement(ours, reference).differing,
    )


def test_a_reference_of_another_seed_does_not_agree_or_disagree(make_record) -> None:
    ours = make_record([0, 1, -1], [AUTOATTACK])

    assert _agreement(ours, make_record([0, 1, -1], [REFERENCE], seed=1)) is None


def test_a_model_without_a_reference_is_not_compared(make_record) -> None:
    assert _agreement(make_record([0, 1, -1], [AUTOATTACK])) is None


def test_the_reference_behind_the_same_attacks_is_preferred(make_record) -> None:
    records = [
        make_record([0, 1, 2, -1]),
        make_record([0, 1, -1, -1], [REFERENCE]),
        make_record([0, 1, 2, -1], [PGD50, REFERENCE]),
    ]
    agreement = _agreement(*records)

    assert ((PGD50,), True) == (agreement.reference.before, agreement.is_alike)


def test_other_attacks_before_are_named(make_record) -> None:
    agreement = _agreement(make_record([0, 1, -1]), make_record([0, 1, -1], [REFERENCE]))

    assert "| m ‡ |" in render_agreements([BenchmarkAgreement("t", [("m", agreement)])])


def test_the_spread_is_over_the_seeds_of_the_reference(make_record) -> None:
    references = [
        make_record([1] * broken + [-1] * (10 - broken), [REFERENCE], seed=seed)
        for seed, broken in enumerate((5, 3, 4))
    ]
    agreement = _agreement(make_record([1] * 5 + [-1] * 5, [AUTOATTACK]), *references)

    assert "| 50.0 to 70.0 (3 seeds) |" in render_agreements(
        [BenchmarkAgreement("t", [("m", agreement)])]
    )


def test_a_line_has_what_each_part_broke_and_the_passes_of_both(make_record) -> None:
    ours = make_record([0, 1, 2, -1], [AUTOATTACK])
    reference = make_record([0, 1, 1, -1], [REFERENCE])
    page = render_agreements([BenchmarkAgreement("t", [("m", _agreement(ours, reference))])])

    # 15 passes an image: 3 + 2 images of 3 that were right, against 3 + 1.
    expected = "| m | 0 | 25.0 | 25.0 | 0 | 1 / 2 | 0 / 0 | 0 / 0 | 1 / 0 | 25.0 / 20.0 | – |"
    assert expected in page


def test_the_page_says_what_is_equal(make_record) -> None:
    ours = make_record([0, 1, -1, -1], [AUTOATTACK])
    swapped = _agreement(ours, make_record([0, -1, 1, -1], [REFERENCE]))
    same = _agreement(ours, make_record([0, 1, -1, -1], [REFERENCE]))
    page = render_agreements([BenchmarkAgreement("t", [("a", swapped), ("b", same)])])

    expected = (
        "Equal: the robust accuracy on 2 of 2 models, every image's verdict on 1 of 2; "
        "6 of 8 verdicts in all."
    )
    assert expected in page


def test_without_records_of_both_the_page_says_how_to_make_them() -> None:
    page = render_agreements([BenchmarkAgreement("t", [])])

    assert "--attack autoattack-reference" in page
    assert "| Model |" not in page


def test_fast_is_compared_with_autoattack_image_by_image_for_each_activation(make_record) -> None:
    pairs = {
        "relu": ([1, 1, -1, -1, -1], [1, -1, 1, 1, -1]),
        "elu": ([1, -1, -1, -1, -1], [1, -1, -1, -1, 1]),
    }
    models = [
        ModelCost(
            name,
            name,
            cost_of(
                attack_runs(
                    [
                        make_record(theirs, ["autoattack(version=standard,block=250)"]),
                        make_record(ours, ["fast(version=3,source=none)"]),
                    ]
                )
            ),
        )
        for name, (theirs, ours) in pairs.items()
    ]
    page = render_agreements([BenchmarkAgreement("t", [], models)])

    assert "| elu | 1 | 5 | 4 | 0 | 1 |\n| relu | 1 | 5 | 2 | 1 | 2 |" in page
    assert "| **all** | 2 | 10 | 6 | 1 | 3 |" in page
