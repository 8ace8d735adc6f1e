"""Training from a folder of images gives the same batches with any number of workers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from satbench.core.errors import SatbenchError
from satbench.data import ImageTree, ResizeCrop, load_dataset, open_tree
from satbench.recipes import TrainConfig
from satbench.training.images.batches import batches_of
from satbench.training.images.colours import COMPONENTS, SPREADS, jittered, lit
from satbench.training.images.folders import random_box

CPU = torch.device("cpu")
ROWS = [np.array([5, 0, 3]), np.array([1, 7, 2])]


def batches(tree: ImageTree, config: TrainConfig, epoch: int = 0) -> list[torch.Tensor]:
    return [x for x, _ in batches_of(tree, config, CPU).train(epoch, ROWS)]


def test_the_number_of_workers_does_not_change_the_batches(
    tree: ImageTree, resized: TrainConfig
) -> None:
    alone, two = batches(tree, resized), batches(replace(tree, workers=2), resized)

    assert [x.shape for x in alone] == [(3, 3, 16, 16)] * 2
    assert all(map(torch.equal, alone, two))


def test_a_view_is_a_function_of_seed_epoch_and_image(
    tree: ImageTree, resized: TrainConfig
) -> None:
    first, later = batches(tree, resized), batches(tree, resized, 1)
    ((resumed, _),) = batches_of(tree, resized, CPU).train(0, [ROWS[1][1:]])

    assert torch.equal(resumed, first[1][1:])
    assert not torch.equal(later[0], first[0])
    assert not torch.equal(batches(tree, replace(resized, seed=1))[0], first[0])


def test_colours_are_a_function_of_seed_epoch_and_image(
    tree: ImageTree, resized: TrainConfig
) -> None:
    jitter = replace(resized, colour_jitter=0.4)
    first = batches(tree, jitter)
    ((resumed, _),) = batches_of(replace(tree, workers=1), jitter, CPU).train(0, [ROWS[1][1:]])

    assert torch.equal(resumed, first[1][1:])
    assert not torch.equal(batches(tree, replace(jitter, crop=16), 1)[0], first[0])
    assert not torch.equal(batches(tree, resized)[0], first[0])


def test_each_colour_factor_is_drawn_independently_and_uniformly() -> None:
    rng = np.random.default_rng(0)
    grey = Image.new("RGB", (8, 8), (100, 100, 100))  # its contrast and saturation are 0
    found = np.array([np.asarray(jittered(grey, 0.4, rng))[0, 0, 0] for _ in range(400)])
    pure = Image.new("RGB", (8, 8), (100, 20, 20))
    spread = np.array(
        [np.ptp(np.asarray(jittered(pure, 0.4, rng))[0, 0].astype(int)) for _ in range(400)]
    )

    assert 59 <= found.min() < 63
    assert 137 < found.max() <= 140
    assert abs(found.mean() - 100) < 5 * 40 / np.sqrt(3 * 400)
    # Brightness times saturation; the largest product is 1.4² = 1.96.
    assert spread.min() < 0.5 * 80
    assert spread.max() > 1.6 * 80


def test_brightness_contrast_and_saturation_are_changed_in_the_order_drawn() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 5, 3)).astype(np.uint8)
    found = np.asarray(jittered(Image.fromarray(pixels), 0.4, np.random.default_rng(1)))
    again = np.random.default_rng(1)
    factors = again.uniform(0.6, 1.4, 3)
    made = Image.fromarray(pixels)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for which in again.permutation(3):
        made = enhancers[which](made).enhance(factors[which])

    np.testing.assert_array_equal(found, np.asarray(made))


def test_lighting_adds_one_colour_along_the_components_of_imagenet() -> None:
    grey, rng = Image.new("RGB", (4, 3), (100, 100, 100)), np.random.default_rng(0)
    lightings = np.array([np.asarray(lit(grey, 0.1, rng)) for _ in range(2000)]) / 255
    shifts = lightings[:, 0, 0] - 100 / 255
    along = shifts @ COMPONENTS  # the components are orthonormal, to four decimals

    assert (lightings == lightings[:, :1, :1]).all()
    # A standard deviation of 2,000 draws errs by 1.6 %; rounding adds (1/255)²/12 to each variance.
    rounding = 1 / 255**2 / 12
    expected = np.sqrt((0.1 * SPREADS) ** 2 + rounding)
    np.testing.assert_allclose(along.std(0), expected, rtol=5 / np.sqrt(2 * 2000))
    assert (np.abs(along.mean(0)) < 5 * expected / np.sqrt(2000)).all()


def test_lighting_stays_in_the_range_of_pixels() -> None:
    black, white = (Image.new("RGB", (2, 2), (value,) * 3) for value in (0, 255))
    rng = np.random.default_rng(0)
    dark, bright = (
        np.array([np.asarray(lit(picture, 0.5, rng)) for _ in range(50)], dtype=int)
        for picture in (black, white)
    )

    assert dark.min() == 0
    assert 0 < dark.max() < 150
    assert bright.max() == 255
    assert 105 < bright.min() < 255


def test_lighting_is_a_function_of_seed_epoch_and_image(
    tree: ImageTree, resized: TrainConfig
) -> None:
    bright = replace(resized, lighting=0.1)
    first = batches(tree, bright)
    ((resumed, _),) = batches_of(replace(tree, workers=1), bright, CPU).train(0, [ROWS[1][1:]])

    assert torch.equal(resumed, first[1][1:])
    assert not torch.equal(batches(tree, replace(bright, seed=1))[0], first[0])
    assert not torch.equal(batches(tree, resized)[0], first[0])


def test_held_out_images_keep_their_colours(tree: ImageTree, resized: TrainConfig) -> None:
    jitter = batches_of(tree, replace(resized, colour_jitter=0.4, lighting=0.1), CPU)
    plain = batches_of(tree, resized, CPU)

    assert torch.equal(jitter.held_out(ROWS[0])[0], plain.held_out(ROWS[0])[0])


@pytest.mark.parametrize("setting", ["colour_jitter", "lighting"])
def test_changes_of_colour_need_a_folder(config: TrainConfig, setting: str) -> None:
    with pytest.raises(SatbenchError, match=rf"^{setting} needs a dataset imagefolder:PATH$"):
        replace(config, **{setting: 0.1})


def test_colour_jitter_must_be_between_0_and_1(resized: TrainConfig) -> None:
    with pytest.raises(SatbenchError, match=r"^expected colour_jitter from 0 to 1, got 1\.5$"):
        replace(resized, colour_jitter=1.5)


def test_labels_stay_with_their_images(tree: ImageTree, resized: TrainConfig) -> None:
    found = [y.tolist() for _, y in batches_of(tree, resized, CPU).train(0, ROWS)]
    kinds = [[int(tree.files[row].startswith("dog")) for row in rows] for rows in ROWS]

    assert found == kinds


@pytest.mark.parametrize("rule", ["crop=16", "resize=20x20", "resize=48,crop=16"])
def test_held_out_images_equal_those_of_an_evaluation(
    tree: ImageTree, config: TrainConfig, rule: str
) -> None:
    name = f"imagefolder:{tree.folder}@{rule}"
    whole, tree = load_dataset(name, "train"), open_tree(name, ResizeCrop.centre(224), 0)
    plain = replace(config, dataset=name)
    rows = np.arange(6, 10)
    x, y = batches_of(tree, plain, CPU).held_out(rows)

    np.testing.assert_array_equal(x.numpy(), whole.pixels(rows))
    np.testing.assert_array_equal(y.numpy(), whole.labels[rows])


def test_flips_from_a_folder_equal_flips_of_images_in_memory(
    tree: ImageTree, config: TrainConfig
) -> None:
    flip = replace(config, dataset="imagefolder:x", augment="flip")
    whole = load_dataset(tree.origin, "train")
    expected = [x for x, _ in batches_of(whole, flip, CPU).train(0, ROWS)]

    assert all(map(torch.equal, expected, batches(tree, flip)))


def test_the_image_size_follows_the_crop_schedule(tree: ImageTree, resized: TrainConfig) -> None:
    grows = replace(resized, crop_schedule="1:8,3:12,4:20")
    sides = [batches(tree, grows, epoch)[0].shape[-1] for epoch in range(5)]

    assert sides == [8, 8, 12, 20, 20]
    assert batches_of(tree, grows, CPU).held_out(ROWS[0])[0].shape == (3, 3, 16, 16)


@pytest.mark.parametrize("text", ["128", "2:128", "1:128,1:224", "1:0", "1:128,", "a:1"])
def test_a_malformed_crop_schedule_is_refused(text: str, resized: TrainConfig) -> None:
    with pytest.raises(SatbenchError, match=r"^expected crop_schedule as EPOCH:PIXELS with rising"):
        replace(resized, crop_schedule=text)


@pytest.mark.parametrize("change", [{"crop": 8}, {"augment": "resized-crop-flip"}])
def test_crops_need_a_folder(change: dict[str, object], config: TrainConfig) -> None:
    with pytest.raises(
        SatbenchError, match=r"^crop, resize, crop_schedule and augment resized-crop"
    ):
        replace(config, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(workers: int, tree: ImageTree, resized: TrainConfig) -> None:
    path = tree.folder / tree.files[0]
    path.write_bytes(path.read_bytes()[:40])

    with pytest.raises(SatbenchError, match=rf"^cannot read the image {path}"):
        batches(replace(tree, workers=workers), resized)


def test_the_digest_depends_on_names_sizes_and_the_rule_for_pixels(tree: ImageTree) -> None:
    def digest(side: int = 16) -> str:
        return open_tree(f"imagefolder:{tree.folder}", ResizeCrop.centre(side), 2).digest

    before = tree.digest
    assert digest() == before
    assert digest(32) != before

    with (tree.folder / tree.files[0]).open("ab") as file:
        file.write(b"more")
    longer = digest()
    (tree.folder / "cat" / "0.png").rename(tree.folder / "cat" / "a.png")

    assert len({before, longer, digest()}) == 3


def test_boxes_have_the_areas_and_ratios_of_torchvision() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(500, 400, rng) for _ in range(2000)])
    across, down = (boxes[:, 2:] - boxes[:, :2]).T
    share, ratio = across * down / 200_000, across / down

    assert (boxes.min(0) >= 0).all()
    assert (boxes[:, 2:] <= (500, 400)).all()
    assert 0.079 < share.min() < 0.09
    assert 0.9 < share.max() <= 1
    assert 0.74 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.35


def test_an_image_that_fits_no_box_is_cropped_at_its_centre() -> None:
    assert random_box(1000, 10, np.random.default_rng(0)) == (493, 0, 506, 10)
    assert random_box(10, 1000, np.random.default_rng(0)) == (0, 493, 10, 506)
