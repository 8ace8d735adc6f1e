"""Image files of all usual kinds."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from satbench.core.errors import SatbenchError
from satbench.data import ResizeCrop, load_dataset, open_tree
from satbench.data.image_files.picture import SUFFIXES, as_bytes, read_picture

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (6, 9, 3)).astype(np.uint8)
WORDS = RNG.integers(0, 65536, (6, 9, 3)).astype(np.uint16)
FLOATS = RNG.random((6, 9)).astype(np.float32)

Array = NDArray[Any]


def png(path: Path, values: Array, **chunks: bytes) -> Path:
    """Write a 16-bit PNG in grey, grey and alpha, RGB or RGBA; Pillow writes only grey."""
    height, width, bands = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[bands]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *((name.encode(), body) for name, body in chunks.items())]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def pnm(path: Path, values: Array, most: int) -> Path:
    magic = b"P5" if values.shape[2] == 1 else b"P6"
    head = b"%s\n%d %d\n%d\n" % (magic, values.shape[1], values.shape[0], most)
    path.write_bytes(head + values.astype(">u2").tobytes())
    return path


def pixels(path: Path, **how: Any) -> Array:
    """Return the three bands of an image as floats in [0, 1].  -> (3, H, W)."""
    bands = read_picture(path, **how)
    if len(bands) == 1:
        return np.asarray(bands[0]).transpose(2, 0, 1) / np.float32(255)
    return np.stack([np.asarray(band) for band in bands])


def grey(values: Array) -> Array:
    return np.broadcast_to(values, (3, *values.shape[-2:]))


# 8 bits: read as torchvision does


@pytest.mark.parametrize(
    ("suffix", "modes"),
    [
        (".png", "1 L P RGB"),
        (".jpg", "1 L RGB CMYK YCbCr RGBX"),
        (".tif", "1 L P RGB CMYK YCbCr RGBX"),
        (".bmp", "1 L P RGB"),
        (".gif", "1 L P RGB"),
        (".webp", "1 L P RGB YCbCr RGBX"),
        (".ppm", "RGB"),
        (".pgm", "L"),
    ],
)
def test_8_bit_images_equal_pillows_conversion_to_rgb(
    suffix: str, modes: str, tmp_path: Path
) -> None:
    for mode in modes.split():
        path = tmp_path / f"{mode}{suffix}"
        Image.fromarray(BYTES).convert(mode).save(path)
        with Image.open(path) as picture:
            expected = np.asarray(picture.convert("RGB"))

        np.testing.assert_array_equal(np.asarray(read_picture(path)[0]), expected)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_an_opaque_alpha_channel_is_dropped(mode: str, tmp_path: Path) -> None:
    picture = Image.fromarray(BYTES).convert(mode)
    picture.save(tmp_path / "a.png" if mode != "PA" else tmp_path / "a.tif")
    (path,) = tmp_path.iterdir()

    np.testing.assert_array_equal(
        np.asarray(read_picture(path)[0]), np.asarray(picture.convert("RGB"))
    )


def see_through(path: Path, kind: str) -> Path:
    picture = Image.fromarray(BYTES).convert("RGBA")
    picture.putpixel((3, 2), (9, 9, 9, 254))
    if kind == "palette":
        Image.fromarray(BYTES).quantize(8).save(path, transparency=3)
    elif kind == "colour":
        Image.fromarray(BYTES).save(path, transparency=tuple(int(v) for v in BYTES[2, 3]))
    elif kind == "16 bits":
        png(path, np.concatenate([WORDS, np.full((6, 9, 1), 65534, np.uint16)], 2))
    elif kind == "16 bits, grey":
        png(path, np.concatenate([WORDS[..., :1], np.full((6, 9, 1), 9, np.uint16)], 2))
    elif kind == "16 bits, colour":
        png(path, WORDS, tRNS=WORDS[0, 0].astype(">u2").tobytes())
    else:
        picture.convert(kind).save(path)
    return path


@pytest.mark.parametrize(
    "kind",
    ["RGBA", "LA", "palette", "colour", "16 bits", "16 bits, grey", "16 bits, colour"],
)
def test_transparent_pixels_are_refused(kind: str, tmp_path: Path) -> None:
    path = see_through(tmp_path / "a.png", kind)
    with pytest.raises(SatbenchError, match=rf"^cannot take the image {path}: .*transparent pix"):
        read_picture(path)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_an_image_of_several_frames_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    first, *others = (Image.new("RGB", (6, 6), (90 * k, 0, 0)) for k in range(3))
    first.save(path, save_all=True, append_images=others)
    with pytest.raises(SatbenchError, match=rf"^cannot take the image {path}: it has 3 frames"):
        read_picture(path)


def test_only_the_first_picture_of_a_multi_picture_jpeg_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    first, second = Image.fromarray(BYTES), Image.new("RGB", (9, 6))
    first.save(path, format="MPO", save_all=True, append_images=[second])

    assert np.abs(pixels(path) - BYTES.transpose(2, 0, 1) / 255).mean() < 0.2
    assert pixels(path).mean() > 0.3


# More than 8 bits


def test_16_bit_grey_is_scaled_by_65535(tmp_path: Path) -> None:
    expected = grey(WORDS[..., 0] / np.float32(65535))
    paths = [
        png(tmp_path / "a.png", WORDS[..., :1]),
        pnm(tmp_path / "a.pgm", WORDS[..., :1], 65535),
        tmp_path / "a.tif",
        tmp_path / "b.png",
    ]
    for path in paths[2:]:
        Image.fromarray(WORDS[..., 0]).save(path)

    for path in paths:
        np.testing.assert_allclose(pixels(path), expected, rtol=0, atol=1e-7)


def test_16_bit_colour_keeps_all_bits(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", WORDS)
    opaque = np.concatenate([WORDS, np.full((6, 9, 1), 65535, np.uint16)], 2)
    expected = WORDS.transpose(2, 0, 1) / np.float32(65535)

    np.testing.assert_array_equal(pixels(path), expected)
    np.testing.assert_array_equal(pixels(png(tmp_path / "b.png", opaque)), expected)


def test_a_portable_grey_map_is_scaled_by_its_own_maximum(tmp_path: Path) -> None:
    path = pnm(tmp_path / "a.pgm", WORDS[..., :1] >> 4, 4095)

    np.testing.assert_allclose(pixels(path), grey((WORDS[..., 0] >> 4) / 4095), atol=2e-5)


def test_floats_in_0_to_1_are_read_unchanged(tmp_path: Path) -> None:
    Image.fromarray(FLOATS).save(tmp_path / "a.tif")

    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), grey(FLOATS))


def test_a_tiff_with_white_as_zero_is_inverted(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(WORDS[..., 0]).save(path, tiffinfo={262: 0})
    raw = path.read_bytes()
    tag = struct.pack("<HHI", 262, 3, 1)
    path.write_bytes(raw.replace(tag + b"\1", tag + b"\0"))

    np.testing.assert_allclose(pixels(path), grey(1 - WORDS[..., 0] / 65535), atol=1e-6)


@pytest.mark.parametrize("scale", [255, 1.001, -1, np.nan])
def test_floats_outside_0_to_1_are_refused(scale: float, tmp_path: Path) -> None:
    Image.fromarray(FLOATS * np.float32(scale / FLOATS.max())).save(tmp_path / "a.tif")
    with pytest.raises(SatbenchError, match=r"^cannot take the image .*a\.tif: .*floats in \[0, 1"):
        read_picture(tmp_path / "a.tif")


def test_integers_of_an_unknown_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(WORDS[..., 0].astype(np.int32)).save(tmp_path / "a.tif")
    pnm(tmp_path / "a.ppm", WORDS, 65535)
    for path in tmp_path.iterdir():
        with pytest.raises(SatbenchError, match=rf"^cannot take the image {path}: .*8 bits a c"):
            read_picture(path)


def test_more_than_8_bits_are_rounded_to_bytes_for_training(tmp_path: Path) -> None:
    picture = as_bytes(read_picture(png(tmp_path / "a.png", WORDS)))

    np.testing.assert_array_equal(np.asarray(picture), np.rint(WORDS / 257).astype(np.uint8))


def test_a_bitmap_of_5_and_6_bits_per_channel_is_read_as_8_bits(tmp_path: Path) -> None:
    head = b"BM" + struct.pack("<IHHI", 70, 0, 0, 66)
    info = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    (tmp_path / "a.bmp").write_bytes(head + info + masks + struct.pack("<HH", 0xF800, 0xFFFF))

    assert np.asarray(read_picture(tmp_path / "a.bmp")[0]).tolist() == [[[255, 0, 0], [255] * 3]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write an image of bytes and one of 16 bits, 9 × 6 both."""
    for name in ("ant", "bee"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    Image.fromarray(BYTES).save(tmp_path / "tree" / "ant" / "a.png")
    png(tmp_path / "tree" / "bee" / "b.png", WORDS)
    return tmp_path / "tree"


def test_a_folder_with_one_16_bit_image_is_read_as_floats(folder: Path) -> None:
    data = load_dataset(f"imagefolder:{folder}@none")
    by_label = dict(zip(data.labels.tolist(), data.images, strict=True))

    assert data.images.dtype == np.float32
    np.testing.assert_array_equal(by_label[0], BYTES.transpose(2, 0, 1) / np.float32(255))
    np.testing.assert_array_equal(by_label[1], WORDS.transpose(2, 0, 1) / np.float32(65535))


@pytest.mark.parametrize("deep", ["ant", "bee"])
def test_the_first_image_of_a_mixed_folder_equals_the_first_of_the_whole(
    deep: str, folder: Path
) -> None:
    if deep == "ant":
        (folder / "ant" / "a.png").rename(folder / "bee" / "a.png")
        (folder / "bee" / "b.png").rename(folder / "ant" / "b.png")
    whole = load_dataset(f"imagefolder:{folder}@none")

    assert whole.images.dtype == np.float32
    assert load_dataset(f"imagefolder:{folder}@none", n_examples=1).digest == whole.first(1).digest


@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos"])
def test_resized_16_bit_images_stay_in_0_to_1_at_a_sharp_edge(
    interpolation: str, folder: Path
) -> None:
    edge = np.repeat(np.array([0, 0, 0, 0, 65535, 65535, 65535, 65535, 0], np.uint16), 3)
    png(folder / "bee" / "b.png", np.broadcast_to(edge.reshape(1, 9, 3), (6, 9, 3)))
    rule = f"resize=24,crop=24,interpolation={interpolation}"
    images = load_dataset(f"imagefolder:{folder}@{rule}").images

    assert (images.min(), images.max()) == (0, 1)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
def test_16_bit_images_are_resized_as_8_bit_images_are(folder: Path, interpolation: str) -> None:
    # Values far from black and white, because Pillow clips bytes after the rows and the columns.
    png(folder / "bee" / "b.png", WORDS // 4 + 24576)
    Image.fromarray(((WORDS // 4 + 24576) >> 8).astype(np.uint8)).save(folder / "ant" / "a.png")
    rule = f"resize=12,crop=8,interpolation={interpolation}"
    data = load_dataset(f"imagefolder:{folder}@{rule}")

    assert data.images.shape == (2, 3, 8, 8)
    assert 0 <= data.images.min() <= data.images.max() <= 1
    np.testing.assert_allclose(data.images[0], data.images[1], atol=1.6 / 255)


def test_training_rounds_16_bit_images_to_bytes(folder: Path) -> None:
    tree = open_tree(f"imagefolder:{folder}@none", ResizeCrop(), 0)
    data = load_dataset(f"imagefolder:{folder}@none")
    views = np.stack([np.asarray(tree.view(row)).transpose(2, 0, 1) for row in range(2)])

    np.testing.assert_allclose(views / 255, data.images, rtol=0, atol=0.5001 / 255)


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif", "16 bits"])
def test_an_image_is_rotated_by_its_exif_orientation(
    kind: str, orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{kind if ' ' not in kind else 'png'}"
    if kind == "16 bits":
        png(path, WORDS, eXIf=exif.tobytes().removeprefix(b"Exif\0\0"))
    else:
        Image.fromarray(BYTES).save(path, exif=exif)
    found = read_picture(path)
    expected = ImageOps.exif_transpose(Image.open(path)).convert("RGB")

    assert found[0].size == ((9, 6) if orientation < 5 else (6, 9))
    close = np.abs(np.asarray(as_bytes(found)).astype(int) - np.asarray(expected)) <= 1
    assert close.all()


def test_exif_can_be_ignored_as_torchvision_does(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    (tmp_path / "tree" / "ant").mkdir(parents=True)
    path = tmp_path / "tree" / "ant" / "a.png"
    Image.fromarray(BYTES).save(path, exif=exif)
    turned = load_dataset(f"imagefolder:{tmp_path / 'tree'}@none")
    plain = load_dataset(f"imagefolder:{tmp_path / 'tree'}@none,exif=ignore")

    np.testing.assert_array_equal(plain.images[0], BYTES.transpose(2, 0, 1))
    np.testing.assert_array_equal(turned.images[0], np.rot90(plain.images[0], -1, (1, 2)))
    assert plain.name == "imagefolder:tree@exif=ignore"


def test_an_image_with_broken_exif_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(BYTES).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")

    assert read_picture(path)[0].size == (9, 6)


# Broken files


def whole_file(path: Path) -> bytes:
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 256, (40, 50, 3)).astype(np.uint8))
    picture.save(path)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s not in (".pgm", ".jpeg", ".tiff")])
@pytest.mark.parametrize("keep", [0.0, 0.05, 0.5, 0.9])
def test_a_truncated_file_is_named(suffix: str, keep: float, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    raw = whole_file(path)
    path.write_bytes(raw[: int(keep * len(raw))])
    with pytest.raises(SatbenchError, match=rf"^cannot (read|take) the image {path}") as refused:
        read_picture(path)

    assert "\n" not in str(refused.value)


def test_a_truncated_file_is_named_even_if_pillow_is_set_to_accept_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    raw = whole_file(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(SatbenchError, match=r"^cannot read the image"):
        read_picture(tmp_path / "a.jpg")

    assert ImageFile.LOAD_TRUNCATED_IMAGES


BROKEN: dict[str, Callable[[Path], object]] = {
    "a web page": lambda path: path.write_bytes(b"<html>404</html>"),
    "a pointer": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
    "a link to nothing": lambda path: path.symlink_to("nowhere.png"),
    "a folder": lambda path: path.mkdir(),
    "zeros": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40)),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_not_an_image_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    BROKEN[kind](path)
    with pytest.raises(SatbenchError, match=rf"^cannot read the image {path}"):
        read_picture(path)


def test_a_refused_image_in_a_folder_is_named(folder: Path) -> None:
    see_through(folder / "ant" / "a.png", "RGBA")
    for read in (
        lambda: load_dataset(f"imagefolder:{folder}@none"),
        lambda: open_tree(f"imagefolder:{folder}", ResizeCrop.centre(6), 0).view(0),
        lambda: open_tree(f"imagefolder:{folder}", ResizeCrop.centre(6), 0).view(1),
    ):
        try:
            read()
        except SatbenchError as error:
            assert str(error).startswith(f"cannot take the image {folder / 'ant' / 'a.png'}: ")  # noqa: PT017
