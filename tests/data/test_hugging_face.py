"""`hf:NAME`: data sets in the formats of Hugging Face, read offline."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.data import Dataset, check_name, load_dataset

datasets: Any
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
LABELS = [2, 0, 1, 2, 0, 0, 1, 2]
NAMES = ["ant", "bee", "cat"]


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """Import the package of Hugging Face for these tests, not while tests are collected."""
    global datasets
    why = "needs satbench[datasets]"
    datasets = pytest.importorskip("datasets", reason=why, exc_type=ImportError)


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the cache out of the home folder, the network off, and the progress bars quiet."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def stored(pixels: Any, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def table(
    names: list[str] | None = NAMES, labels: list[int] = LABELS, files: list[bytes] | None = None
) -> Any:
    """Make a data set of 8 images in the columns `photo` and `kind`."""
    kind = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    features = datasets.Features({"photo": datasets.Image(), "kind": kind})
    held = [{"bytes": file, "path": None} for file in files or map(stored, IMAGES)]
    return datasets.Dataset.from_dict({"photo": held, "kind": labels}, features=features)


def saved(folder: Path, found: Any) -> str:
    found.save_to_disk(str(folder / "mine"))
    return f"hf:{folder / 'mine'}"


def test_a_saved_data_set_keeps_its_order_and_pixels(tmp_path: Path) -> None:
    data = load_dataset(saved(tmp_path, table()))

    np.testing.assert_array_equal(data.images, IMAGES.transpose(0, 3, 1, 2))
    assert data.labels.tolist() == LABELS
    assert (data.name, data.split) == ("hf:mine@none", "test")
    assert (data.classes, data.more_classes) == (3, False)


def test_the_first_n_images_equal_the_first_n_of_the_whole_set(tmp_path: Path) -> None:
    name = saved(tmp_path, table())

    assert load_dataset(name, n_examples=3).digest == load_dataset(name).first(3).digest


def test_pixel_rules_and_names_work_as_for_folders(tmp_path: Path) -> None:
    data = load_dataset(saved(tmp_path, table()) + "@resize=12,crop=8,interpolation=bilinear")

    assert data.shape == (3, 8, 8)
    assert data.name == "hf:mine@resize=12,crop=8,interpolation=bilinear"


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "validation")])
def test_an_evaluation_uses_the_test_or_the_validation_split(
    splits: tuple[str, str], tmp_path: Path
) -> None:
    rest = [*range(2), *range(5, 8)]
    train, test = table().select(rest), table().select(range(2, 5))
    both = datasets.DatasetDict(dict(zip(splits, (train, test), strict=True)))
    name = saved(tmp_path, both)

    assert load_dataset(name).labels.tolist() == LABELS[2:5]
    assert load_dataset(name, "train").labels.tolist() == [LABELS[row] for row in rest]
    named = load_dataset(f"{name}@split=train")
    assert (named.name, len(named)) == ("hf:mine/train@none", 5)


def test_images_sorted_by_class_are_shuffled_as_in_a_folder(tmp_path: Path) -> None:
    by_class = [int(label) for label in np.sort(LABELS)]
    data = load_dataset(saved(tmp_path, table(labels=by_class)))
    back = {
        image.tobytes(): int(label) for image, label in zip(data.images, data.labels, strict=True)
    }

    assert data.labels.tolist() != by_class
    assert [back[image.transpose(2, 0, 1).tobytes()] for image in IMAGES] == by_class


def test_a_folder_of_images_is_read_by_its_builder(tmp_path: Path) -> None:
    for number, (pixels, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        place = tmp_path / "tree" / "test" / NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")
    data = load_dataset(f"hf:{tmp_path / 'tree'}")
    folder = load_dataset(f"imagefolder:{tmp_path / 'tree' / 'test'}@none")

    assert data.digest == folder.digest


def test_parquet_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table().to_parquet(str(tmp_path / "data" / "test.parquet"))

    assert load_dataset(f"hf:{tmp_path / 'data'}").labels.tolist() == LABELS


@pytest.mark.parametrize(
    ("classes", "labels", "count"),
    [
        ("", LABELS, 3),
        ("@classes=folders", LABELS, 3),
        ("@classes=10", LABELS, 10),
        ("@classes=MAP", [[7, 5, 9][label] for label in LABELS], 10),
    ],
)
def test_classes_are_numbered_by_name_count_or_map(
    classes: str, labels: list[int], count: int, tmp_path: Path
) -> None:
    (tmp_path / "map.json").write_text('{"cat": 9, "bee": 5, "ant": 7}')
    name = saved(tmp_path, table()) + classes.replace("MAP", f"{tmp_path}/map.json")
    data = load_dataset(name)

    assert (data.labels.tolist(), data.classes) == (labels, count)


@pytest.mark.parametrize("names", [["n01440764", "n15075141", "n01514859"]])
def test_wordnet_ids_get_imagenets_class_numbers(names: list[str], tmp_path: Path) -> None:
    data = load_dataset(saved(tmp_path, table(names)))

    assert data.labels.tolist() == [[0, 999, 8][label] for label in LABELS]
    assert data.classes == 1000


def test_labels_without_class_names_are_class_numbers(tmp_path: Path) -> None:
    data = load_dataset(saved(tmp_path, table(None)))

    assert (data.labels.tolist(), data.classes, data.more_classes) == (LABELS, 3, True)


@pytest.mark.parametrize("first", [True, False])
def test_one_16_bit_image_turns_all_images_into_floats(first: bool, tmp_path: Path) -> None:
    files = [stored(image) for image in IMAGES]
    files[0 if first else 7] = stored(np.full((16, 16), 32768, np.uint16))
    name = saved(tmp_path, table(files=files))
    data = load_dataset(name, n_examples=4)

    assert data.images.dtype == np.float32
    assert data.digest == load_dataset(name).first(4).digest
    if first:
        np.testing.assert_allclose(data.images[0], 32768 / 65535, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.rename_column("photo", "a").add_column("n", [0] * 8), None),
        (lambda t: t.remove_columns("kind"), "one column of labels in hf:mine, got none"),
        (lambda t: t.remove_columns("photo"), "one column of images in hf:mine, got none"),
        (
            lambda t: t.add_column(
                "x",
                [b["bytes"] for b in t.cast_column("photo", datasets.Image(decode=False))["photo"]],
            ).cast_column("x", datasets.Image()),
            "one column of images in hf:mine, got photo, x; name one, image=",
        ),
        (lambda t: t.cast_column("kind", datasets.ClassLabel(names=[*NAMES, "dog"])), None),
    ],
    ids=["renamed", "no label", "no image", "two images", "more names"],
)
def test_the_columns_are_found_or_must_be_named(
    change: Callable[[Any], Any], said: str | None, tmp_path: Path
) -> None:
    name = saved(tmp_path, change(table()))
    if said is None:
        assert load_dataset(name).labels.tolist() == LABELS
        return
    with pytest.raises(SatbenchError, match=said):
        load_dataset(name)


def test_a_column_may_be_named(tmp_path: Path) -> None:
    coarse = table().add_column("coarse", [label // 2 for label in LABELS])
    coarse = coarse.cast_column("coarse", datasets.ClassLabel(names=["a", "b"]))
    name = saved(tmp_path, coarse)

    assert load_dataset(f"{name}@label=coarse").labels.tolist() == [x // 2 for x in LABELS]
    with pytest.raises(SatbenchError, match=r"got kind, coarse; name one, label=…"):
        load_dataset(name)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([stored(IMAGES[0])] * 7 + [b"nothing"], r"^cannot read the image hf:mine#7 "),
        ([stored(IMAGES[0])[:99]] * 8, r"^cannot read the image hf:mine#0 "),
        ([stored(IMAGES[0])] * 7 + [stored(IMAGES[0][:8])], r"got 16×8 from hf:mine#7; give a"),
    ],
)
def test_an_unusable_image_is_named(files: list[bytes], said: str, tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=said):
        load_dataset(saved(tmp_path, table(files=files)))


def test_a_data_set_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table().select([]).to_parquet(str(tmp_path / "data" / "test.parquet"))
    with pytest.raises(SatbenchError, match=r"^(expected at least one image|cannot load the data)"):
        load_dataset(f"hf:{tmp_path / 'data'}")


def test_images_without_a_label_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"labels that count from 0 in hf:mine, got -1"):
        load_dataset(saved(tmp_path, table(labels=[-1] * 8)))


@pytest.mark.parametrize("name", ["hf:nobody/nothing", "hf:/no/where"])
def test_a_data_set_that_cannot_be_loaded_is_named(name: str) -> None:
    with pytest.raises(SatbenchError, match=rf"^cannot load the data set {name} \(") as refused:
        load_dataset(name)

    assert "\n" not in str(refused.value)


def test_a_missing_split_is_refused_with_the_existing_splits(tmp_path: Path) -> None:
    name = saved(tmp_path, datasets.DatasetDict({"dev": table()}))
    with pytest.raises(SatbenchError, match=r"expected the split test or .* got dev; name one"):
        load_dataset(name)

    assert len(load_dataset(f"{name}@split=dev")) == 8


def test_no_code_in_a_data_set_is_run(tmp_path: Path) -> None:
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(SatbenchError, match=r"^cannot load the data set hf:.*/evil "):
        load_dataset(f"hf:{tmp_path / 'evil'}")

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf", "expected the dataset as hf:PATH"),
        ("hf:a/b@spli=test", "unknown option 'spli': did you mean 'split'"),
        ("hf:a/b@classes=few", "expected the classes as"),
        ("hf:a/b@resize=0", "expected a side from 1"),
    ],
)
def test_a_malformed_name_is_refused_before_anything_is_loaded(name: str, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        check_name(name)


def test_the_command_reads_the_data_set_and_checks_its_image_shape(
    fashion: Dataset, tmp_path: Path
) -> None:
    done = CliRunner().invoke(
        cli,
        [
            *("eval", "--model", "fmnist-sat-tiny-relu-s0", "--dataset", saved(tmp_path, table())),
            *("--eps", "0.1", "--out", str(tmp_path / "out"), "--json", "--quiet"),
        ],
    )

    assert "expected images of shape (1, 28, 28)" in str(done.exception)
    assert "hf:mine@none" in str(done.exception)
