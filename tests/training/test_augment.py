"""Augmentation on the device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from satbench.data import Dataset
from satbench.recipes import TrainConfig
from satbench.training.images.batches import OnDevice
from satbench.training.update.augment import Augmentation

CPU = torch.device("cpu")


def by_hand(image: np.ndarray, row: int, column: int, flip: int, padding: int) -> np.ndarray:
    framed = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    _, height, width = image.shape
    cropped = framed[:, row : row + height, column : column + width]
    return cropped[:, :, ::-1] if flip else cropped


def test_each_image_is_cropped_and_flipped_by_its_own_draws() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (6, 3, 5, 7)).astype(np.uint8)
    drawn = np.array([[0, 0, 0], [8, 8, 1], [4, 4, 1], [0, 8, 0], [3, 5, 1], [4, 4, 0]])
    made = Augmentation("crop-flip", 4, 0)(torch.from_numpy(images), torch.from_numpy(drawn))

    expected = [by_hand(image, *d, padding=4) for image, d in zip(images, drawn, strict=True)]
    np.testing.assert_array_equal(made.numpy(), np.stack(expected))
    np.testing.assert_array_equal(made[5].numpy(), images[5])


def test_all_crops_and_both_flips_are_about_equally_likely() -> None:
    drawn = Augmentation("crop-flip", 4, 0).draws(0, 20_000)

    for column, values in ((0, 9), (1, 9), (2, 2)):
        counts = np.bincount(drawn[:, column], minlength=values)
        assert len(counts) == values
        assert (abs(counts - 20_000 / values) < 5 * np.sqrt(20_000 / values)).all()


def test_augment_flip_flips_images_and_does_not_crop_them() -> None:
    images = torch.arange(72, dtype=torch.uint8).view(12, 1, 2, 3)
    augment = Augmentation("flip", 4, 0)
    drawn = augment.draws(0, 12)
    made = augment(images, torch.from_numpy(drawn))

    assert set(drawn[:, 2]) == {0, 1}
    for image, before, flip in zip(made, images, drawn[:, 2], strict=True):
        assert torch.equal(image, before.flip(2) if flip else before)


def test_the_draws_are_a_function_of_seed_and_epoch() -> None:
    draws = Augmentation("crop-flip", 4, 0).draws(1, 50)

    np.testing.assert_array_equal(Augmentation("crop-flip", 4, 0).draws(1, 50), draws)
    assert (Augmentation("crop-flip", 4, 0).draws(2, 50) != draws).any()
    assert (Augmentation("crop-flip", 4, 1).draws(1, 50) != draws).any()


def test_an_image_is_augmented_equally_in_any_batch(toy: Dataset, config: TrainConfig) -> None:
    changed = replace(config, augment="crop-flip", crop_padding=2)
    rows = np.array([7, 3, 5, 1])
    ((whole, _),) = OnDevice(toy, changed, CPU).train(1, [rows])
    parts = [x for x, _ in OnDevice(toy, changed, CPU).train(1, [rows[:1], rows[1:]])]
    ((plain, _),) = OnDevice(toy, config, CPU).train(1, [rows])

    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(whole, plain)


@pytest.mark.parametrize("kind", ["none", "crop-flip"])
def test_held_out_images_are_not_augmented(kind: str, toy: Dataset, config: TrainConfig) -> None:
    rows = np.arange(32, 40)
    x, y = OnDevice(toy, replace(config, augment=kind), CPU).held_out(rows)

    np.testing.assert_array_equal(x.numpy(), toy.pixels(rows))
    np.testing.assert_array_equal(y.numpy(), toy.labels[rows])


def test_bytes_and_floats_give_the_same_pixels(toy: Dataset, config: TrainConfig) -> None:
    rows = np.arange(40)
    floats = replace(toy, images=toy.pixels(rows))

    for data in (toy, floats):
        ((x, _),) = OnDevice(data, config, CPU).train(0, [rows])
        np.testing.assert_array_equal(x.numpy(), toy.pixels(rows))
