from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from satbench.core.noise import Noise, generator_for

SHAPE = (2, 3, 4)
EXPECTED = (
    [[-0.6016393899917603, 0.289203405380249, -0.4268839359283447]],
    [[0.023486383259296417, -0.2941339910030365, -1.3534635305404663]],
    998376209,
    [2, 3, 5, 1, 0, 4],
)


def uniform(seed: int = 0, purpose: str = "pgd", restart: int = 0, index: int = 5) -> bytes:
    return Noise(seed, purpose, (index,)).uniform(SHAPE, restart).tobytes()


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_the_noise_of_an_image_does_not_depend_on_its_batch(kind: str) -> None:
    together = getattr(Noise(0, "pgd", (7, 5, 900, 5)), kind)(SHAPE)
    alone = getattr(Noise(0, "pgd", (5,)), kind)(SHAPE)

    assert_array_equal(together[[1, 3]], np.concatenate([alone, alone]))


def test_the_noise_of_an_image_does_not_depend_on_the_block() -> None:
    assert_array_equal(
        Noise(0, "pgd", (5,), block=3).uniform(SHAPE), Noise(0, "pgd", (5,)).uniform(SHAPE)
    )


def test_asking_again_gives_the_same_noise() -> None:
    noise = Noise(0, "pgd", (5, 6))

    assert_array_equal(noise.uniform(SHAPE), noise.uniform(SHAPE))


def test_seed_purpose_restart_and_index_each_change_the_noise() -> None:
    drawn = {
        uniform(),
        uniform(seed=1),
        uniform(purpose="square"),
        uniform(restart=1),
        uniform(index=6),
    }

    assert len(drawn) == 5


def test_numbers_that_read_alike_when_joined_give_different_noise() -> None:
    assert uniform(restart=1, index=11) != uniform(restart=11, index=1)


def test_noise_leaves_numpys_global_generator_alone() -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].tobytes()  # type: ignore[union-attr]
    Noise(0, "pgd", (1, 2)).uniform(SHAPE)

    assert np.random.get_state()[1].tobytes() == before  # type: ignore[union-attr]


def test_uniform_noise_lies_in_minus_one_to_one() -> None:
    drawn = Noise(0, "pgd", tuple(range(20))).uniform((100, 100))

    assert drawn.min() >= -1
    assert drawn.max() < 1
    assert drawn.min() < -0.9999
    assert drawn.max() > 0.9999


def test_uniform_noise_has_the_moments_of_its_distribution() -> None:
    drawn = Noise(0, "pgd", tuple(range(20))).uniform((100, 100)).astype(np.float64)

    assert drawn.mean() == pytest.approx(0, abs=0.005)
    assert drawn.var() == pytest.approx(1 / 3, abs=0.005)


def test_normal_noise_has_the_moments_of_its_distribution() -> None:
    drawn = Noise(0, "pgd", tuple(range(20))).normal((100, 100)).astype(np.float64)

    assert drawn.mean() == pytest.approx(0, abs=0.01)
    assert drawn.var() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_a_batch_of_noise_is_float32_with_a_row_an_image(kind: str) -> None:
    drawn = getattr(Noise(0, "pgd", (1, 2)), kind)(SHAPE)

    assert (drawn.shape, drawn.dtype) == ((2, *SHAPE), np.float32)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_an_empty_batch_has_empty_noise(kind: str) -> None:
    drawn = getattr(Noise(0, "pgd", ()), kind)(SHAPE)

    assert (drawn.shape, drawn.dtype) == ((0, *SHAPE), np.float32)


def test_a_block_seed_depends_on_seed_purpose_restart_and_block() -> None:
    seeds = {
        Noise(0, "fab", ()).block_seed(),
        Noise(1, "fab", ()).block_seed(),
        Noise(0, "square", ()).block_seed(),
        Noise(0, "fab", (), block=1).block_seed(),
        Noise(0, "fab", ()).block_seed(restart=1),
    }

    assert len(seeds) == 5


def test_a_block_seed_does_not_depend_on_the_images_left_in_the_block() -> None:
    assert Noise(0, "fab", (1, 2), 4).block_seed() == Noise(0, "fab", (9,), 4).block_seed()


def test_normal_and_uniform_noise_of_an_image_are_independent() -> None:
    noise = Noise(0, "pgd", tuple(range(2000)))
    sizes = np.abs(noise.normal((1,)).ravel())

    assert np.corrcoef(sizes, noise.uniform((1,)).ravel())[0, 1] == pytest.approx(0, abs=0.06)


def test_the_streams_are_those_of_the_first_release() -> None:
    # The zoo was trained and every record was written with these: they must never move.
    noise = Noise(0, "pgd", (3,), block=2)
    got = (
        noise.uniform((3,)).tolist(),
        noise.normal((3,), restart=1).tolist(),
        noise.block_seed(),
        generator_for("imagefolder order").permutation(6).tolist(),
    )

    assert got == EXPECTED
