"""The noise of the training attack: any part can be drawn alone and has the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from satbench.core.noise import generator_for, key_of
from satbench.training.update.noise import StepNoise
from satbench.training.update.philox import uniform_numbers

CPU = torch.device("cpu")
SHAPES = [(1,), (1, 2, 2), (3, 5, 7), (1, 28, 28)]
KEY = (3, "training attack", 1, 2, 0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_noise_equals_that_of_the_shipped_models(shape: tuple[int, ...]) -> None:
    # They were trained with a stream that was drawn from its beginning for the whole batch.
    drawn = 2 * generator_for(*KEY).random((13, *shape), np.float32) - 1

    np.testing.assert_array_equal(StepNoise(3, 1, 2, 13).uniform(shape), drawn)


@pytest.mark.parametrize("draw", ["uniform", "normal"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_noise_of_an_image_is_the_same_in_any_share_of_the_batch(
    shape: tuple[int, ...], draw: str
) -> None:
    whole = getattr(StepNoise(3, 1, 2, 12), draw)(shape)
    for size in (1, 3, 4, 12):
        parts = [getattr(StepNoise(3, 1, 2, 12, k, size), draw)(shape) for k in range(0, 12, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(getattr(StepNoise(3, 1, 2, 12, 5), draw)(shape), whole[5:])


def test_normal_noise_has_mean_0_and_variance_1_and_differs_by_image() -> None:
    drawn = StepNoise(3, 1, 2, 50).normal((1, 20, 20))

    assert abs(drawn.mean()) < 5 / np.sqrt(drawn.size)
    assert abs(drawn.var() - 1) < 5 * np.sqrt(2 / drawn.size)
    assert len(np.unique(drawn[:, 0, 0, 0])) == 50
    assert (StepNoise(3, 1, 3, 50).normal((1, 20, 20)) != drawn).all()


@pytest.mark.parametrize(("start", "count"), [(0, 1), (0, 64), (7, 2), (8, 8), (1001, 333), (5, 0)])
def test_the_stream_on_a_device_equals_numpys(start: int, count: int) -> None:
    numbers = generator_for(*KEY).random(start + count, np.float32)[start:]
    drawn = uniform_numbers(key_of(*KEY), start, count, CPU)

    assert drawn.dtype == torch.float32
    np.testing.assert_array_equal(drawn.numpy(), numbers)


def test_a_stream_can_be_drawn_in_pieces_and_far_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("satbench.training.update.philox._AT_ONCE", 4)
    far = generator_for(*KEY)
    far.bit_generator.advance(10**12)  # type: ignore[attr-defined]
    numbers = far.random(100, np.float32)

    drawn = uniform_numbers(key_of(*KEY), 8 * 10**12, 100, CPU)
    np.testing.assert_array_equal(drawn.numpy(), numbers)


@pytest.mark.gpu
def test_a_gpu_draws_the_same_noise() -> None:
    noise = StepNoise(3, 1, 2, 12, 3, 5)

    drawn = noise.uniform_on((3, 32, 32), torch.device("cuda")).cpu().numpy()
    np.testing.assert_array_equal(drawn, noise.uniform((3, 32, 32)))


@pytest.mark.parametrize("draw", ["uniform", "normal"])
def test_a_share_of_a_batch_larger_than_memory_can_be_drawn(draw: str) -> None:
    noise = StepNoise(0, 0, 0, 2**40, 2**40 - 2, 2)
    drawn = getattr(noise, draw)((3, 8, 8))

    assert drawn.shape == (2, 3, 8, 8)
    assert (drawn[0] != drawn[1]).all()
