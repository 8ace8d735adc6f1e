"""Checkpoints with other data next to the weights are read; no code of a file is called."""

from __future__ import annotations

import argparse
import codecs
import collections
import datetime
import decimal
import fractions
import functools
import io
import ipaddress
import logging
import pathlib
import pickle
import pickletools
import random
import sys
import types
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.model_zoo.checkpoints import read_pickle, read_state

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}
Save = Callable[[object, Path], None]

WAYS: dict[str, Save] = {
    "zip": torch.save,
    "zip, protocol 4": lambda thing, path: torch.save(thing, path, pickle_protocol=4),
    "zip, protocol 5": lambda thing, path: torch.save(thing, path, pickle_protocol=5),
    "old": lambda thing, path: torch.save(thing, path, _use_new_zipfile_serialization=False),
    "pickle": lambda thing, path: path.write_bytes(pickle.dumps(thing)) and None,
    "pickle, protocol 0": lambda thing, path: path.write_bytes(pickle.dumps(thing, 0)) and None,
}


def restored(state: dict[str, Tensor]) -> bool:
    return state.keys() == WEIGHTS.keys() and all(
        torch.equal(tensor, state[name]) for name, tensor in WEIGHTS.items()
    )


# Data next to the weights


def drawn_from() -> np.random.RandomState:
    source = np.random.RandomState(0)
    source.rand(3)
    return source


BESIDE: dict[str, Any] = {
    "array": np.eye(3),
    "array by columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "array of the other byte order": np.arange(3, dtype=">i4"),
    "array of text": np.array(["cat", "dog"]),
    "array of objects": np.array([1, "a", None], dtype=object),
    "array of dates": np.array(["2024-01-01"], dtype="datetime64[D]"),
    "array of records": np.zeros(2, dtype=[("x", "f4"), ("y", "i8")]),
    "masked array": np.ma.masked_array([1.0, 2.0], [True, False]),
    "empty array": np.empty((0, 4), np.float32),
    "the same array twice": [WEIGHTS["a.bias"].numpy()] * 2,
    "number of NumPy": np.float32(1),
    "dtype": np.dtype("float16"),
    "type of NumPy": np.float64,
    "state of NumPy's generator": drawn_from().get_state(),
    "NumPy's old generator": drawn_from(),
    "NumPy's generator": np.random.default_rng(0),
    "state of Python's generator": random.Random(0).getstate(),
    "Python's generator": random.Random(0),
    "state of torch's generator": torch.Generator().get_state(),
    "torch's generator": torch.Generator(),
    "pure path": pathlib.PurePosixPath("a/b"),
    "path": pathlib.Path("runs") / "a",
    "Windows path": pathlib.PureWindowsPath("C:/runs"),
    "date": datetime.date(2024, 1, 1),
    "time": datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.UTC),
    "duration": datetime.timedelta(seconds=3),
    "defaultdict": collections.defaultdict(list, {"loss": [1.0]}),
    "defaultdict of defaultdicts": collections.defaultdict(functools.partial(dict, a=1)),
    "deque": collections.deque([1, 2], maxlen=5),
    "OrderedDict": collections.OrderedDict(a=1),
    "Counter": collections.Counter("aab"),
    "SimpleNamespace": types.SimpleNamespace(lr=0.1, nested=types.SimpleNamespace(x=1)),
    "options of argparse": argparse.Namespace(lr=0.1, out=pathlib.Path("a"), loss=nn.MSELoss),
    "set": {1, 2},
    "frozen set": frozenset("ab"),
    "complex number": 1 + 2j,
    "bytes": b"\x00\xff",
    "array of bytes": bytearray(b"ab"),
    "range": range(3),
    "slice": slice(1, None),
    "ellipsis": ...,
    "whole number": 10**30,
    "decimal": decimal.Decimal("0.1"),
    "fraction": fractions.Fraction(8, 255),
    "UserDict": collections.UserDict(a=1),
    "ChainMap": collections.ChainMap({"a": 1}),
    "logger": logging.getLogger("a"),
    "address": ipaddress.ip_address("10.0.0.1"),
    "identifier": uuid.uuid5(uuid.NAMESPACE_DNS, "satbench"),
    "class": collections.OrderedDict,
    "class of torch": nn.Linear,
    "function": torch.nn.functional.cross_entropy,
    "size": torch.Size([2, 3]),
    "device": torch.device("cuda:1"),
    "dtype of torch": torch.bfloat16,
    "version of torch": torch.__version__,
    "sparse tensor": torch.eye(3).to_sparse(),
    "tensor of complex numbers": torch.ones(2, dtype=torch.complex64),
    "tensor of an odd dtype": torch.ones(2).to(torch.float8_e4m3fn),
    "parameter": nn.Parameter(torch.ones(2)),
}


@pytest.mark.parametrize("what", BESIDE)
def test_weights_are_read_from_a_file_with_other_data(what: str, tmp_path: Path) -> None:
    for number, save in enumerate(WAYS.values()):
        path = tmp_path / f"{number}.pt"
        try:
            save({"state_dict": WEIGHTS, "epoch": 3, "beside": BESIDE[what]}, path)
        except TypeError:  # Python itself cannot write these in protocol 0
            assert (what, number) in {("slice", 5), ("ellipsis", 5)}
            continue
        assert restored(read_state(path))


VALUES = [
    *("array", "array by columns", "array of the other byte order", "array of text"),
    *("empty array", "the same array twice", "number of NumPy"),
    *("state of NumPy's generator", "state of Python's generator", "pure path", "date", "time"),
    *("duration", "deque", "OrderedDict", "Counter", "SimpleNamespace", "set", "frozen set"),
    *("complex number", "bytes", "range", "slice", "ellipsis", "whole number", "decimal"),
    *("fraction", "size", "dtype of torch", "version of torch", "tensor of complex numbers"),
    *("parameter", "state of torch's generator"),
]


@pytest.mark.parametrize("what", VALUES)
def test_data_is_read_as_it_was_written(what: str, tmp_path: Path) -> None:
    torch.save({"beside": BESIDE[what]}, tmp_path / "w.pt")
    read: Any = read_pickle(tmp_path / "w.pt")

    assert type(_plain(read["beside"])) is type(_plain(BESIDE[what]))
    assert _plain(read["beside"]) == _plain(BESIDE[what])


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().tolist()
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return value.dtype.kind, value.dtype.itemsize, value.tolist()
    return str(value) if isinstance(value, str) else value


def test_a_defaultdict_is_read_as_a_plain_dict(tmp_path: Path) -> None:
    torch.save(BESIDE["defaultdict"], tmp_path / "w.pt")
    read = read_pickle(tmp_path / "w.pt")

    assert (type(read), read) == (dict, {"loss": [1.0]})


def test_configs_of_other_libraries_are_read_without_the_library(tmp_path: Path) -> None:
    # These are the bytes that their classes would write.
    for name in ("easydict.EasyDict", "omegaconf.dictconfig.DictConfig", "yacs.config.CfgNode"):
        module, _, qualname = name.rpartition(".")
        kind = type(qualname, (dict,) if "omega" not in name else (), {"__module__": module})
        with pretended(kind):
            made: Any = kind()
            vars(made).update(lr=0.1)
            torch.save({"state_dict": WEIGHTS, "cfg": made}, tmp_path / "w.pt")

        assert module not in sys.modules
        assert restored(read_state(tmp_path / "w.pt"))


class pretended:  # noqa: N801
    """Make a class importable, as pickle wants it, while the block runs."""

    def __init__(self, kind: type) -> None:
        self.names = kind.__module__.split(".")
        self.modules = {
            ".".join(self.names[: n + 1]): types.ModuleType(".".join(self.names[: n + 1]))
            for n in range(len(self.names))
        }
        setattr(self.modules[kind.__module__], kind.__name__, kind)

    def __enter__(self) -> None:
        self.real = {name: sys.modules[name] for name in self.modules if name in sys.modules}
        sys.modules.update(self.modules)

    def __exit__(self, *_: object) -> None:
        for name in self.modules:
            del sys.modules[name]
        sys.modules.update(self.real)


def test_types_that_dill_wrote_are_read(tmp_path: Path) -> None:
    class Dilled(pickle._Pickler):  # type: ignore[misc,name-defined]
        def save_global(self, thing: Any, name: str | None = None) -> None:
            if thing is collections.OrderedDict:
                self.save_reduce(load_type, ("OrderedDict",))
            else:
                super().save_global(thing, name)

        dispatch = pickle._Pickler.dispatch | {type: save_global}

    load_type = types.FunctionType((lambda name: None).__code__, {}, "_load_type")
    load_type.__module__, load_type.__qualname__ = "dill._dill", "_load_type"
    kind = type("_load_type", (), {"__module__": "dill._dill"})
    with pretended(kind):
        vars(sys.modules["dill._dill"])["_load_type"] = load_type
        file = io.BytesIO()
        Dilled(file, 2).dump({"a.b": np.eye(2), "c": collections.OrderedDict(x=1)})
    (tmp_path / "w.pkl").write_bytes(file.getvalue())

    read: Any = read_pickle(tmp_path / "w.pkl")
    assert (read["c"], type(read["c"])) == ({"x": 1}, collections.OrderedDict)


# Tensors


STORED = {
    "transposed": torch.arange(6.0).reshape(2, 3).t(),
    "part": torch.arange(10)[3:7],
    "expanded": torch.ones(1, 2).expand(3, 2),
    "scalar": torch.tensor(3.5),
    "empty": torch.empty(0, 4),
    "half": torch.rand(3).half(),
    "bfloat16": torch.rand(3).bfloat16(),
    "bool": torch.tensor([True, False]),
    "uint16": torch.tensor([1, 2], dtype=torch.uint16),
}


@pytest.mark.parametrize("way", WAYS)
def test_tensors_equal_those_that_torch_reads(way: str, tmp_path: Path) -> None:
    WAYS[way](STORED, tmp_path / "w.pt")
    read: Any = read_pickle(tmp_path / "w.pt")

    for name, tensor in STORED.items():
        assert torch.equal(read[name], tensor)
        assert (read[name].dtype, read[name].stride()) == (tensor.dtype, tensor.stride())


@pytest.mark.parametrize("way", ["zip", "old"])
def test_tensors_that_shared_memory_still_share_it(way: str, tmp_path: Path) -> None:
    whole = torch.zeros(4)
    WAYS[way]({"whole": whole, "part": whole[1:3]}, tmp_path / "w.pt")
    read: Any = read_pickle(tmp_path / "w.pt")
    read["part"][0] = 7

    assert read["whole"].tolist() == [0, 7, 0, 0]


def test_tensors_in_the_other_byte_order_are_read(tmp_path: Path) -> None:
    torch.save({"w": torch.tensor([1, 256]), "z": torch.tensor([1 + 2j])}, tmp_path / "w.pt")
    with (
        zipfile.ZipFile(tmp_path / "w.pt") as here,
        zipfile.ZipFile(tmp_path / "big.pt", "w") as there,
    ):
        for name in here.namelist():
            data = here.read(name)
            if name.endswith("byteorder"):
                data = b"big" if sys.byteorder == "little" else b"little"
            elif "/data/" in name:
                data = np.frombuffer(data, "<i8" if name.endswith("0") else "<f4").byteswap()
                data = data.tobytes()
            there.writestr(name, data)
    read: Any = read_pickle(tmp_path / "big.pt")

    assert (read["w"].tolist(), read["z"].tolist()) == ([1, 256], [1 + 2j])


# Pickles that would run code


class Calls:
    """Pickled as a call of `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class OfAFile:
    """An object whose class is not plain data."""

    def __init__(self) -> None:
        self.value = 1


def refusal(thing: object, folder: Path, way: str = "zip") -> str:
    WAYS[way]({"state_dict": WEIGHTS, "beside": thing}, folder / "w.pt")
    with pytest.raises(SatbenchError) as refused:
        read_state(folder / "w.pt")
    return str(refused.value)


REFUSED: dict[str, tuple[object, str, str]] = {
    "system": (Calls(__import__("os").system, "true"), "posix.system|nt.system", "do not trust"),
    "eval": (Calls(eval, "1"), "builtins.eval", "do not trust"),
    "import": (Calls(__import__, "os"), "builtins.__import__", "do not trust"),
    "method": (Calls(Path.touch, Path("x")), "pathlib.Path.touch", "do not trust"),
    "bound method": (Calls("a".join, ["b"]), "builtins.getattr|str", ""),
    "function of torch": (Calls(torch.load, "x"), "torch.serialization.load", "does not read"),
    "model": (nn.Linear(2, 2), "torch.nn.modules.linear.Linear", "a whole model"),
    "scheduler": (
        torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.ones(1)], 0.1), 1),
        "torch.optim.lr_scheduler.StepLR",
        "does not read",
    ),
    "own class": (OfAFile(), f"{__name__}.OfAFile", f"only the code of {__name__} can build"),
    "quantised tensor": (
        Calls(torch._utils._rebuild_qtensor, 1),
        "torch._utils._rebuild_qtensor",
        "quantised",
    ),
    "function of NumPy": (Calls(np.load, "x"), "numpy.load", "code of numpy"),
    "class of NumPy": (Calls(np.memmap, "x"), "numpy.memmap", "code of numpy"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("way", ["zip", "zip, protocol 4", "old", "pickle"])
def test_an_object_that_is_not_data_is_refused_with_its_name_a_reason_and_advice(
    what: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    thing, name, why = REFUSED[what]
    said = refusal(thing, tmp_path, way)

    assert any(f"would run {one}" in said for one in name.split("|"))
    assert why in said
    assert "ask its owner for model.state_dict()" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.pt"]


OPCODES = {
    "class by INST": b"(S'true'\nios\nsystem\n.",
    "class by OBJ": b"(cos\nsystem\nS'true'\no.",
    "call by name in protocol 0": b"cos\nsystem\n(S'true'\ntR.",
    "extension": b"\x80\x02\x82\x01.",
    "attribute of a class": b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb.",
    "attribute of a class by slots": (
        b"\x80\x02cargparse\nNamespace\nN}X\x08\x00\x00\x00__init__K\x01s\x86b."
    ),
    "list of a range": (
        b"\x80\x02c__builtin__\nlist\nc__builtin__\nxrange\nK\x00J\xff\xff\xff\x7f\x86R\x85R."
    ),
    "call of a number": b"\x80\x02K\x01)R.",
    "no memory": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00)){tR.",
    "persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "large bytes": b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
}


@pytest.mark.parametrize("what", OPCODES)
def test_a_hand_written_pickle_has_no_effect(what: str, tmp_path: Path) -> None:
    before = (dict(vars(argparse.Namespace)), dict(vars(collections.OrderedDict)))
    (tmp_path / "w.pt").write_bytes(OPCODES[what])
    with pytest.raises(SatbenchError, match=r"would run|are corrupt"):
        read_pickle(tmp_path / "w.pt")

    assert (dict(vars(argparse.Namespace)), dict(vars(collections.OrderedDict))) == before


def test_only_plain_encodings_turn_text_into_bytes(tmp_path: Path) -> None:
    call = Calls(codecs.encode, "a", "utf-7")

    assert "would run _codecs.encode('utf-7')" in refusal(call, tmp_path)


def test_a_dtype_with_a_false_memory_layout_gives_no_array(tmp_path: Path) -> None:
    # Read by NumPy itself, this would take the bytes for addresses of objects.
    class Lying:
        def __reduce__(self) -> Any:
            state = (3, "|", None, ("f",), {"f": (np.dtype("O"), 0)}, 8, 1, 0)
            return np.dtype, ("V8", False, True), state

    class Array:
        def __reduce__(self) -> Any:
            make = np._core.multiarray._reconstruct
            return make, (np.ndarray, (0,), b"b"), (1, (1,), Lying(), False, b"A" * 8)

    torch.save({"state_dict": WEIGHTS, "x": Array()}, tmp_path / "w.pt")
    read: Any = read_pickle(tmp_path / "w.pt")

    assert not isinstance(read["x"], np.ndarray)


def test_a_tensor_larger_than_its_stored_data_is_corrupt(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "w.pt")
    with (
        zipfile.ZipFile(tmp_path / "w.pt") as here,
        zipfile.ZipFile(tmp_path / "cut.pt", "w") as there,
    ):
        for name in here.namelist():
            data = here.read(name)
            there.writestr(name, data[:4] if "/data/" in name else data)
    with pytest.raises(SatbenchError, match=r"are corrupt"):
        read_state(tmp_path / "cut.pt")


@pytest.mark.parametrize("way", WAYS)
def test_a_broken_file_is_refused_in_one_sentence(way: str, tmp_path: Path) -> None:
    WAYS[way]({"state_dict": WEIGHTS, "beside": np.eye(2)}, tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    rng = np.random.default_rng(0)
    said = []
    for place in rng.integers(0, len(whole), 20):
        for broken in (
            whole[:place],
            whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :],
        ):
            (tmp_path / "w.pt").write_bytes(broken)
            try:
                read_state(tmp_path / "w.pt")  # a changed byte of a weight is not an error
            except SatbenchError as error:
                said.append(str(error))

    assert len(said) >= 20
    assert [text for text in said if "\n" in text] == []


def test_the_test_files_have_the_pickle_protocols_of_their_names(tmp_path: Path) -> None:
    for way, protocol in (("zip", 2), ("zip, protocol 4", 4), ("pickle, protocol 0", 0)):
        WAYS[way]([1.5, "a"], tmp_path / "w.pt")
        data = (tmp_path / "w.pt").read_bytes()
        if way.startswith("zip"):
            with zipfile.ZipFile(tmp_path / "w.pt") as archive:
                data = archive.read("w/data.pkl")
        assert max(opcode.proto for opcode, _, _ in pickletools.genops(data)) == protocol


# Names and kinds of files


@pytest.mark.parametrize("name", ["w", "w.model", "w.pth.tar", "w.pkl", "w.t7", "w.pt.best"])
def test_the_format_of_a_file_is_read_from_its_contents_not_its_name(
    name: str, tmp_path: Path
) -> None:
    torch.save(WEIGHTS, tmp_path / name)
    assert restored(read_state(tmp_path / name))

    save_file(WEIGHTS, tmp_path / name)
    assert restored(read_state(tmp_path / name))


def write_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.eye(2))


def write_arrays(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.eye(2))


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/w.pt", b"")


def write_tar(path: Path) -> None:
    path.write_bytes(bytes(257) + b"ustar" + bytes(250))


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "TorchScript": (
        lambda path: torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), path),
        r"a TorchScript archive, which holds a program .*torch\.jit\.load",
    ),
    "HDF5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(90)), r"an HDF5 file"),
    "npy": (write_array, r"one array of NumPy"),
    "npz": (write_arrays, r"arrays of NumPy \(\.npz\)"),
    "zip": (write_zip, r"a zip archive: unpack it"),
    "tar": (write_tar, r"a tar archive: unpack it"),
    "gzip": (lambda path: path.write_bytes(b"\x1f\x8b" + bytes(90)), r"a compressed archive"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["w.pt", "w"])
def test_a_file_without_weights_is_refused_with_its_kind(
    kind: str, name: str, tmp_path: Path
) -> None:
    write, said = KINDS[kind]
    write(tmp_path / name)
    with pytest.raises(SatbenchError, match=said):
        read_state(tmp_path / name)


# Several sets


def test_equal_sets_of_weights_count_as_one(tmp_path: Path) -> None:
    copy = {name: tensor.clone() for name, tensor in WEIGHTS.items()}
    torch.save({"model": WEIGHTS, "best": copy}, tmp_path / "w.pt")

    assert restored(read_state(tmp_path / "w.pt"))
    assert restored(read_state(tmp_path / "w.pt", "best"))


@pytest.mark.parametrize("thing", [[WEIGHTS, 3], (3, WEIGHTS, {"optimizer": {"a": torch.ones(1)}})])
def test_weights_in_a_list_are_found(thing: object, tmp_path: Path) -> None:
    torch.save(thing, tmp_path / "w.pt")

    assert restored(read_state(tmp_path / "w.pt"))


def test_a_pickle_of_arrays_by_name_is_a_set_of_weights(tmp_path: Path) -> None:
    arrays = {name: tensor.numpy() for name, tensor in WEIGHTS.items()}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": arrays, "matching": True}))

    assert restored(read_state(tmp_path / "w.pkl"))


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path: Path) -> None:
    loop: dict[str, object] = {}
    loop["model"] = loop
    torch.save(loop, tmp_path / "w.pt")
    with pytest.raises(SatbenchError, match=r"holds no weights"):
        read_state(tmp_path / "w.pt")
