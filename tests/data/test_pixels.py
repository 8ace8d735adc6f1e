"""The rules for resizing and cropping the pixels of an image file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.data import ResizeCrop, load_dataset, open_tree

SIZES = [(31, 31), (33, 47), (47, 33), (64, 31), (300, 257)]

# From robustbench/data.py of RobustBench 1.1.1.
ROBUSTBENCH = {
    "Res256Crop224": [Resize(256), CenterCrop(224)],
    "BicubicRes256Crop224": [Resize(256, InterpolationMode.BICUBIC), CenterCrop(224)],
    "Res224": [Resize([224, 224])],
    "Crop288": [CenterCrop(288)],
    "None": [],
}


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8)).convert(mode)


def applied(rule: str, picture: Image.Image) -> Any:
    (found,) = ResizeCrop.parse(rule).applied((picture,), Path("a.png"))
    return np.asarray(found)


@pytest.mark.parametrize("preset", ROBUSTBENCH)
def test_presets_equal_those_of_robustbench_bit_by_bit(preset: str) -> None:
    for size in SIZES:
        picture = noise(*size)
        expected = np.asarray(Compose(ROBUSTBENCH[preset])(picture))

        np.testing.assert_array_equal(applied(preset, picture), expected)


@pytest.mark.parametrize("interpolation", list(InterpolationMode))
@pytest.mark.parametrize("resize", ["31", "45", "40x56"])
def test_any_rule_equals_torchvisions_transforms_bit_by_bit(
    resize: str, interpolation: InterpolationMode
) -> None:
    sides = [int(side) for side in resize.split("x")]
    theirs = [Resize(sides if len(sides) > 1 else sides[0], interpolation), CenterCrop(29)]
    name = interpolation.value.removesuffix("-exact")
    rule = f"resize={resize},crop=29,interpolation={name}"
    for size in SIZES:
        picture = noise(*size)
        expected = np.asarray(Compose(theirs)(picture))

        np.testing.assert_array_equal(applied(rule, picture), expected)


@pytest.mark.parametrize("size", [(20, 20), (20, 41), (37, 30), (31, 35)])
def test_a_black_border_equals_torchvisions(size: tuple[int, int]) -> None:
    expected = np.asarray(CenterCrop(34)(noise(*size)))

    np.testing.assert_array_equal(applied("crop=34,border=black", noise(*size)), expected)


def test_a_crop_larger_than_the_image_is_refused_without_a_border() -> None:
    with pytest.raises(SatbenchError, match=r"^expected at least 34×34 .* got 37×30 from a\.png; "):
        applied("crop=34", noise(37, 30))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("none", "none"),
        ("NONE", "none"),
        ("resize=none", "none"),
        ("resize=256,crop=224", "resize=256,crop=224,interpolation=bicubic"),
        ("crop=224,resize=256", "resize=256,crop=224,interpolation=bicubic"),
        ("crop=288,border=black", "crop=288,border=black"),
        ("Crop288", "crop=288,border=black"),
        ("32", "resize=32x32,interpolation=bilinear"),
        ("res256crop224,exif=ignore", "resize=256,crop=224,interpolation=bilinear,exif=ignore"),
        ("Res256Crop224,crop=288,resize=320", "resize=320,crop=288,interpolation=bilinear"),
        ("none,interpolation=lanczos", "none"),
    ],
)
def test_a_rule_has_one_canonical_text_that_can_be_read_back(text: str, canonical: str) -> None:
    assert str(ResizeCrop.parse(text)) == canonical
    assert str(ResizeCrop.parse(canonical)) == canonical


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resize=256,crop=288", "a crop of at most 256 pixels"),
        ("resize=200x300,crop=224", "a crop of at most 200 pixels"),
        ("Res256Crop224,crop=257", "a crop of at most 256 pixels"),
        ("resize=0", "a side from 1 to"),
        ("crop=100000", "a side from 1 to"),
        ("resize=-3", "expected resize=N, HEIGHTxWIDTH or none"),
        ("resize=3x", "expected resize=N, HEIGHTxWIDTH or none"),
        ("crop=2.5", "expected crop=N or none"),
        ("crop=²", "expected crop=N or none"),
        ("interpolation=cubic", r"expected interpolation=nearest\|box\|bilinear"),
        ("border=white", r"expected border=none\|black, got 'white'"),
        ("exif=no", r"expected exif=ignore\|follow"),
        ("crop=8,crop=9", "crop is given twice"),
        ("crop=", "expected crop=VALUE"),
        ("7", "a side from 8 to 512 pixels, got 7"),
        ("", "expected a rule for pixels such as resize=256,crop=224,interpolation=bicubic"),
        ("resize=3,none", "expected a rule for pixels"),
    ],
)
def test_a_wrong_rule_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        ResizeCrop.parse(text)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("resiz=256", "unknown option 'resiz': did you mean 'resize'"),
        ("none,Resize=256", "unknown option 'Resize': did you mean 'resize'"),
        ("BicubicRes256Crop22", "did you mean 'BicubicRes256Crop224'"),
        ("nothing", "unknown option 'nothing'"),
    ],
)
def test_a_misspelt_rule_is_refused_with_the_nearest(rule: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=said):
        load_dataset(f"imagefolder:{tmp_path}@{rule}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write 12 images of 32 × 32, as CIFAR's are, in three classes."""
    rng = np.random.default_rng(0)
    for number in range(12):
        place = tmp_path / "cifar" / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path / "cifar"


def test_images_are_unchanged_under_the_rule_none(folder: Path) -> None:
    data = load_dataset(f"imagefolder:{folder}@none")
    paths = {np.asarray(Image.open(path)).tobytes() for path in folder.glob("*/*.png")}

    assert (data.shape, data.images.dtype) == ((3, 32, 32), np.uint8)
    assert {image.transpose(1, 2, 0).tobytes() for image in data.images} == paths


@pytest.mark.parametrize("number", [0, 7])
def test_images_of_several_sizes_are_refused_without_a_rule(folder: Path, number: int) -> None:
    (path,) = folder.glob(f"*/{number}.png")
    noise(40, 32).save(path)
    with pytest.raises(SatbenchError, match=r"^expected all images .* from .*\d+\.png; give a"):
        load_dataset(f"imagefolder:{folder}@none")

    assert load_dataset(f"imagefolder:{folder}@resize=32,crop=32").shape == (3, 32, 32)


def test_the_digest_depends_on_the_rule(folder: Path) -> None:
    rules = ("none", "32", "resize=40,crop=32", "resize=40,crop=32,interpolation=bilinear")
    digests = {load_dataset(f"imagefolder:{folder}@{rule}").digest for rule in rules}
    trees = {open_tree(f"imagefolder:{folder}@{rule}", ResizeCrop(), 0).digest for rule in rules}

    assert len(digests) == 3  # a resize to the present size changes nothing
    assert len(trees) == 4


@pytest.mark.parametrize("rule", ["none", "Res256Crop224", "36", "resize=40,crop=37", "crop=20"])
def test_training_and_evaluation_read_the_same_pixels(folder: Path, rule: str) -> None:
    data = load_dataset(f"imagefolder:{folder}@{rule}")
    tree = open_tree(f"imagefolder:{folder}@{rule}", ResizeCrop(48, 40), 0)
    views = np.stack([np.asarray(tree.view(row)).transpose(2, 0, 1) for row in range(len(tree))])

    np.testing.assert_array_equal(views, data.images)
    assert (tree.name, tree.shape) == (data.name, data.shape)
    assert tree.labels.tolist() == data.labels.tolist()
    assert load_dataset(tree.origin).digest == data.digest


def test_training_uses_its_own_rule_if_the_name_has_none(folder: Path) -> None:
    tree = open_tree(f"imagefolder:{folder}", ResizeCrop.centre(32), 0)

    assert tree.name == "imagefolder:cifar@resize=37,crop=32,interpolation=bicubic"
    assert tree.origin == f"imagefolder:{folder}@resize=37,crop=32,interpolation=bicubic"
    assert tree.picture(0).size == (32, 32)


def test_training_refuses_an_image_of_another_size(folder: Path) -> None:
    tree = open_tree(f"imagefolder:{folder}@none", ResizeCrop(), 0)
    noise(40, 32).save(folder / tree.files[5])
    with pytest.raises(SatbenchError, match=rf"got 40×32 from .*{tree.files[5]}"):
        tree.view(5)


@pytest.mark.parametrize("name", ["a@b", "val@none", "x@resize=3"])
def test_a_folder_may_be_named_like_a_rule(folder: Path, name: str) -> None:
    folder = folder.rename(folder.parent / name)

    assert load_dataset(f"imagefolder:{folder}@none").name == f"imagefolder:{name}@none"
    assert load_dataset(f"imagefolder:{folder}", n_examples=1).shape == (3, 224, 224)


@pytest.mark.parametrize("n", [2, 11])
def test_fewer_images_than_requested_are_accepted_with_or_fewer(folder: Path, n: int) -> None:
    name = f"imagefolder:{folder}@none"

    assert len(load_dataset(name, n_examples=13, or_fewer=True)) == 12
    assert load_dataset(name, n_examples=n, or_fewer=True).digest == (
        load_dataset(name).first(n).digest
    )
