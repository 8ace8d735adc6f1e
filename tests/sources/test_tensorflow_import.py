"""Checkpoints of TensorFlow 1, read and converted without TensorFlow."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bundles import block, field, table, to_tensorflow, varint, write_bundle
from click.testing import CliRunner
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.cli import cli
from satbench.core.crc32c import crc32c
from satbench.core.errors import SatbenchError
from satbench.model_zoo.card import read_card
from satbench.model_zoo.tensor_bundle import TensorBundle, open_bundle
from satbench.model_zoo.tensorflow_names import layout_of
from satbench.model_zoo.weights import digest_weights
from satbench.models import load_model, request_model
from satbench.models.tensorflow_import import ImportRequest, import_checkpoint
from satbench.networks.build import build_network
from satbench.networks.same_padding import SameMaxPool, SamePad

pytestmark = pytest.mark.sampled(2)

DATA = Path(__file__).with_name("data")
TINY = DATA / "tiny"  # written by TensorFlow, see make_tiny.py
SMALL = "resnext(depth=50,groups=1,width=1)"

Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def tiny() -> TensorBundle:
    return open_bundle(TINY)


# The files


def test_tensors_of_each_type_are_read_with_their_shape(tiny: TensorBundle) -> None:
    half, double = tiny.read("types/half"), tiny.read("types/double")

    assert half.tolist() == [0, 0.125, 0.25, 0.375]
    assert tiny.read("types/float").tolist() == [[[[[0, 0.125, 0.25, 0.375, 0.5, 0.625]]]]]
    assert double.tolist() == [[0, 0.125, 0.25], [0.375, 0.5, 0.625]]
    assert tiny.read("types/bfloat16").tolist() == [1.5, -3]
    assert tiny.read("types/one").tolist() == 2.5
    assert tiny.read("types/empty").shape == (0, 3)
    assert {half.dtype, double.dtype} == {np.dtype(np.float32)}


def test_integers_are_refused_as_weights(tiny: TensorBundle) -> None:
    assert tiny.entries["step"].shape == ()
    with pytest.raises(SatbenchError, match="step holds no floating-point numbers"):
        tiny.read("step")


@pytest.mark.parametrize("name", ["tiny", "tiny.index", "tiny.meta", "tiny.data-00000-of-00001"])
def test_a_checkpoint_can_be_named_by_any_of_its_files(name: str, tiny: TensorBundle) -> None:
    assert open_bundle(DATA / name) == tiny


def copied(tmp_path: Path, ending: str, change: Any) -> Path:
    """Copy the tiny checkpoint, one of its files changed; -> the prefix."""
    for path in DATA.glob("tiny.*"):
        data = path.read_bytes()
        if path.name.endswith(ending):
            data = change(bytearray(data))
        (tmp_path / path.name).write_bytes(bytes(data))
    return tmp_path / "tiny"


def flipped(data: bytearray, place: int) -> bytearray:
    data[place] ^= 1
    return data


@pytest.mark.parametrize("place", [0, 100, 700, -60, -1])
def test_a_flipped_bit_in_the_index_is_detected(place: int, tmp_path: Path) -> None:
    prefix = copied(tmp_path, ".index", lambda data: flipped(data, place))
    with pytest.raises(SatbenchError, match=r"the checkpoint .*tiny\.index is corrupt \("):
        open_bundle(prefix)


def test_a_flipped_bit_in_the_data_file_is_detected(tmp_path: Path) -> None:
    bundle = open_bundle(copied(tmp_path, "00001", lambda data: flipped(data, 2000)))
    (name,) = (n for n, e in bundle.entries.items() if e.offset <= 2000 < e.offset + e.size)
    with pytest.raises(SatbenchError, match=r"00001 is corrupt \(the checksum of .* differs\)"):
        bundle.read(name)


@pytest.mark.parametrize("length", [0, 10, 47, 500, -1])
def test_a_truncated_index_is_detected(length: int, tmp_path: Path) -> None:
    prefix = copied(tmp_path, ".index", lambda data: data[:length])
    with pytest.raises(SatbenchError, match=r"tiny\.index is corrupt \("):
        open_bundle(prefix)


def test_a_truncated_data_file_is_detected(tmp_path: Path) -> None:
    bundle = open_bundle(copied(tmp_path, "00001", lambda data: data[:-4]))
    last = max(bundle.entries, key=lambda name: bundle.entries[name].offset)
    with pytest.raises(SatbenchError, match=r"the checksum of .* differs"):
        bundle.read(last)


def test_a_missing_data_file_is_reported(tmp_path: Path) -> None:
    prefix = copied(tmp_path, ".index", bytes)
    (tmp_path / "tiny.data-00000-of-00001").unlink()
    with pytest.raises(SatbenchError, match=r"expected the numbers .*00001, which is missing"):
        open_bundle(prefix).read("types/half")


def test_a_missing_checkpoint_and_one_in_the_older_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"expected a TensorFlow checkpoint, none\.index and "):
        open_bundle(tmp_path / "none")
    (tmp_path / "old").write_bytes(b"V1")
    with pytest.raises(SatbenchError, match="the older format V1"):
        open_bundle(tmp_path / "old")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (table({b"": field(2, 1)}), "another byte order"),
        (table({b"": b"", b"w": field(7, b"")}), "in slices"),
        (table({b"": b"", b"w": field(1, 1) + field(2, field(2, field(1, 9)))}), "0 bytes for a"),
        (table({b"w": b"\x07"}), "corrupt"),
        (table({b"": b"\xff" * 12}), "an integer does not end"),
        (table({b"": b"", b"w": b"\x12\x7f\x00"}), "ends within a field"),
        (b"\x80\x04K\x01." * 20, "the end of the table is missing"),
    ],
    ids=["big endian", "slices", "size", "no header", "varint", "message", "pickle"],
)
def test_an_unsupported_or_malformed_index_is_refused(
    content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / "w.index").write_bytes(content)
    with pytest.raises(SatbenchError, match=said):
        open_bundle(tmp_path / "w").read("w")


def test_compressed_blocks_are_refused(tmp_path: Path) -> None:
    body = block({b"": b""}, b"\1")
    index = block({b"": varint(0) + varint(len(body) - 5)})
    handles = varint(0) * 2 + varint(len(body)) + varint(len(index) - 5)
    footer = table({b"": b""})[-8:]
    (tmp_path / "w.index").write_bytes(body + index + handles.ljust(40, b"\0") + footer)
    with pytest.raises(SatbenchError, match="compressed"):
        open_bundle(tmp_path / "w")


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 12_345, (1 << 23) + 70_000])
def test_the_fast_checksum_equals_the_checksum_byte_by_byte(size: int) -> None:
    data = np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()
    tail = 5_000  # the bytes before it take the same steps
    crc = crc32c(data[:-tail]) if size > tail else 0
    for octet in data[-tail:] if size > tail else data:
        crc ^= 0xFFFFFFFF
        crc = step_of_crc(crc ^ octet) ^ 0xFFFFFFFF

    assert crc32c(data) == crc


def step_of_crc(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


# Padding


@pytest.mark.parametrize("size", ["6x6", "7x7", "6x7", "7x8"])
@pytest.mark.parametrize("kernel", [3, 5])
def test_strided_layers_pad_like_tensorflow(size: str, kernel: int, tiny: TensorBundle) -> None:
    def nchw(name: str) -> Tensor:
        return torch.from_numpy(tiny.read(name)).permute(0, 3, 1, 2)

    x = nchw(f"{size}/image")
    weight, each = (
        torch.from_numpy(tiny.read(f"{kind}{kernel}")) for kind in ("kernel", "depthwise")
    )
    padded = SamePad(kernel, 2)(x)
    convolved = F.conv2d(padded, weight.permute(3, 2, 0, 1), stride=2)
    separately = F.conv2d(padded, each.permute(2, 3, 0, 1), stride=2, groups=2)

    torch.testing.assert_close(convolved, nchw(f"{size}/conv{kernel}"))
    torch.testing.assert_close(separately, nchw(f"{size}/depthwise{kernel}"))
    assert torch.equal(SameMaxPool()(x), nchw(f"{size}/pool"))


@pytest.mark.parametrize("architecture", ["resnet(depth=18", SMALL[:-1], "efficientnet(variant=b0"])
def test_tensorflow_padding_keeps_the_weights_and_changes_the_logits(
    architecture: str,
) -> None:
    usual, variant = (
        network_of(f"{architecture},padding={padding})") for padding in ("torch", "tensorflow")
    )
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = usual(x), variant(x)

    assert digest_weights(usual) == digest_weights(variant)
    assert not torch.equal(got, expected)


@pytest.mark.parametrize("architecture", ["resnet(depth=18", "efficientnet(variant=b0"])
def test_a_network_with_tensorflow_padding_can_be_traced(architecture: str) -> None:
    network = build_network(f"{architecture},padding=tensorflow)", "silu", 3).eval()
    traced = torch.fx.symbolic_trace(network)
    for size in (64, 65):
        x = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(traced(x), network(x))


# Names


@pytest.mark.parametrize(
    ("names", "architecture", "activation"),
    [
        ("resnet50-smoothrelu", "resnet(depth=50)", "smooth-relu"),
        ("efficientnet-b0", "efficientnet(variant=b0)", "silu"),
    ],
)
def test_the_tensor_names_are_those_of_the_official_code(
    names: str, architecture: str, activation: str
) -> None:
    lines = (DATA / f"{names}.names").read_text().splitlines()
    shapes = {name: shape for name, shape in map(str.split, lines) if name != "global_step"}
    with torch.device("meta"):
        network = build_network(architecture, activation, 1000)
    state = network.state_dict()
    turned = {}
    for ours, (theirs, turn) in layout_of(network).origins.items():
        name = theirs if theirs in shapes else f"efficientnet-b0/{theirs}"
        zeros = np.zeros([int(size) for size in shapes[name].split("x")], np.float32)
        turned[name] = (turn(zeros).shape, tuple(state[ours].shape))

    assert turned.keys() == shapes.keys()
    assert [name for name, (got, wanted) in turned.items() if got != wanted] == []


# The conversion


def network_of(architecture: str, activation: str = "silu", classes: int = 5) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(architecture, activation, classes).eval()
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and "normalize" not in name and tensor.dim() == 1:
                tensor.uniform_(0.5, 1.0)
    return network


def converted(arrays: Arrays, tmp_path: Path, **changes: Any) -> Path:
    """Write a checkpoint and import it; -> the path of the card."""
    write_bundle(tmp_path / "ck" / "net", arrays)
    wanted = {"architecture": SMALL, "activation": "silu", "classes": 5} | changes
    return import_checkpoint(ImportRequest(tmp_path / "ck" / "net", **wanted), tmp_path / "out")


def answers(card: Path, x: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = load_model(request_model(str(card)), 5).module(x)
    return logits


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("architecture", "scope", "bgr"),
    [(SMALL, "tower/", True), ("efficientnet", "efficientnet-b0/", False)],
)
def test_a_checkpoint_becomes_a_model_with_a_card(
    architecture: str, scope: str, bgr: bool, tmp_path: Path
) -> None:
    spec = (
        f"{architecture.removesuffix(')')}{',' if ')' in architecture else '('}padding=tensorflow)"
    )
    network = network_of(spec)
    card = converted(to_tensorflow(network, scope), tmp_path, architecture=architecture)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(x.flip(1) if bgr else x)

    torch.testing.assert_close(answers(card, x), expected)
    told = read_card(card)
    assert (told.name, told.classes, told.input_shape) == ("net", 5, (3, 224, 224))
    assert "padding=tensorflow" in told.architecture
    assert "net" in told.origin
    assert sorted(path.name for path in card.parent.iterdir()) == ["net.json", "net.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "flip"), [("rgb", False), ("bgr", True)])
def test_the_order_of_colour_channels_can_be_given(
    channels: str, flip: bool, tmp_path: Path
) -> None:
    network = network_of(f"{SMALL[:-1]},padding=tensorflow)")
    card = converted(to_tensorflow(network), tmp_path, channels=channels)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(answers(card, x), network(x.flip(1) if flip else x))


def without(arrays: Arrays, name: str) -> Arrays:
    return {key: array for key, array in arrays.items() if key != name}


AVERAGE = "/ExponentialMovingAverage"


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (lambda a: without(a, "linear/b"), {}, r"lacks 1 weights such as linear/b: check --arch"),
        (lambda a: a | {"group4/W": np.ones(3, "f4")}, {}, r"has also 1 .* group4/W: check --arch"),
        (
            lambda a: a | {"conv0/smoothrelu_beta": np.ones(1, "f4")},
            {},
            "smoothrelu_beta: check --activation",
        ),
        (lambda a: a, {"activation": "smooth-relu"}, r"lacks 49 .*beta.*: check --activation"),
        (lambda a: a, {"architecture": "efficientnet"}, r"found 0 among conv0/W, .*: check --arch"),
        (
            lambda a: a,
            {"architecture": "wide-resnet"},
            "expected --arch resnet or resnext or effic",
        ),
        (lambda a: a, {"architecture": "resnet(depth=50,padding=torch)"}, "padding=tensorflow"),
        (lambda a: a, {"architecture": "resnext(depth=50,groups=2,width=1)"}, "do not fit"),
        (lambda a: a, {"activation": "pssilu"}, r"have no weight for .*: check --activation"),
        (lambda a: a, {"classes": 7}, "do not fit the model"),
        (lambda a: a, {"averaged": True}, "holds no moving averages"),
        (
            lambda a: a | {f"{name}{AVERAGE}": array for name, array in a.items()},
            {},
            "--averaged or --as-trained",
        ),
        (lambda a: a | {"x/conv0/W": a["conv0/W"]}, {}, "found 2 among"),
        (lambda a: a | {"linear/b": np.full(5, np.nan, "f4")}, {}, "with NaN or infinity"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_and_nothing_is_written(
    change: Any, options: dict[str, Any], said: str, tmp_path: Path, small: Arrays
) -> None:
    with pytest.raises(SatbenchError, match=said):
        converted(change(small), tmp_path, **options)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def small() -> Arrays:
    return to_tensorflow(network_of(SMALL))


@pytest.mark.slow
def test_the_state_of_the_optimiser_is_left_out(small: Arrays, tmp_path: Path) -> None:
    kept = {f"{name}/Momentum": array for name, array in small.items()}
    more = {"learning_rate": np.array(0.1, np.float32), "moving/cost/EMA": np.array(1, np.float32)}
    card = converted(small | kept | more, tmp_path)

    assert read_card(card).parameters == sum(
        p.numel() for p in build_network(SMALL, "silu", 5).parameters()
    )


@pytest.mark.slow
def test_named_tensors_can_be_left_out(small: Arrays, tmp_path: Path) -> None:
    more = {"teacher/conv0/W": np.ones((7, 7, 3, 64), np.float32)}

    assert converted(small | more, tmp_path, drop=("teacher/",)).is_file()


@pytest.mark.sampled(1)
@pytest.mark.parametrize("averaged", [True, False])
def test_either_the_weights_or_their_averages_are_converted(
    averaged: bool, small: Arrays, tmp_path: Path
) -> None:
    other = {f"{name}{AVERAGE}": array + 1 for name, array in small.items()}
    card = converted(small | other, tmp_path, averaged=averaged)
    bias = load_model(request_model(str(card)), 5).module.state_dict()["fc.bias"]

    torch.testing.assert_close(bias, torch.from_numpy(small["linear/b"]) + averaged)


@pytest.mark.slow
def test_an_existing_model_is_not_overwritten(small: Arrays, tmp_path: Path) -> None:
    card = converted(small, tmp_path)
    before = card.read_bytes()
    with pytest.raises(SatbenchError, match=r"exists already: give --name or --out"):
        converted(small, tmp_path)
    assert card.read_bytes() == before


def test_the_command_writes_a_model_that_models_show_displays(
    small: Arrays, tmp_path: Path
) -> None:
    write_bundle(tmp_path / "ck" / "net", small)
    arguments = ["models", "import-tf1", str(tmp_path / "ck" / "net.index"), "--arch", SMALL]
    arguments += ["--activation", "silu", "--classes", "5", "--name", "sat", "--size", "299"]
    arguments += ["--licence", "MIT", "--out", str(tmp_path), "--json"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    card = json.loads(done.stdout)["card"]
    shown = CliRunner().invoke(cli, ["models", "show", card], catch_exceptions=False).stdout

    assert card == str(tmp_path / "sat" / "sat.json")
    assert re.search(r"images +3×299×299, 5 classes", shown)
    assert re.search(r"licence +MIT", shown)
    assert re.search(r"origin +.*checkpoint net;", shown)
