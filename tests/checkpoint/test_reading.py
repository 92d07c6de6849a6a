"""Checkpoints of every format open with the same tensors; none runs code; what is broken is refused by its name."""

import json
import os
import pickle
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from clipbert_mm.checkpoint import CheckpointError, read_checkpoint
from clipbert_mm.checkpoint.pickles import STORAGES

TENSORS = {
    "backbone.conv1.weight": torch.linspace(-1, 1, 4 * 3 * 7 * 7).view(4, 3, 7, 7),
    "backbone.bn1.weight": torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64),
    "head.bias": torch.tensor(7.0),
    "backbone.bn1.num_batches_tracked": torch.tensor([12, 2**40]),
}
LEGACY = dict(_use_new_zipfile_serialization=False)


def write_pickle(content: Any, path: Path, protocol: int) -> None:
    """Write arrays as detectron2 does."""
    path.write_bytes(pickle.dumps(content, protocol))


def write_arrays(tensors: dict[str, Tensor], path: Path, protocol: int) -> None:
    """Write a file of detectron2's model zoo."""
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    write_pickle({"model": arrays, "__author__": "Zoo", "matching_heuristics": True}, path, protocol)


WRITERS: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "torch": torch.save,
    "torch 1.5": partial(torch.save, **LEGACY),
    "safetensors": save_file,
    **{f"pickle {protocol}": partial(write_arrays, protocol=protocol) for protocol in (0, 2, 4, 5)},
}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor] = TENSORS) -> None:
    assert found.keys() == wanted.keys()
    torch.testing.assert_close(dict(found), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("written", WRITERS)
def test_every_format_opens_with_the_same_tensors(tmp_path: Path, written: str, mmap: bool):
    path = tmp_path / "weights"  # the ending says nothing
    WRITERS[written](TENSORS, path)
    assert_same(read_checkpoint(str(path), mmap=mmap)["state_dict"])


def test_a_pickle_of_python_2_and_numpy_1_opens(tmp_path: Path):
    # As Detectron's oldest files are: str without an encoding, and the array's bytes in it.
    values = np.array([1.5, -2.0, 3e-8], np.float32)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(K\x03tcnumpy\ndtype\n(U\x02f4K\x00K\x01"
        b"tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x0c" + values.tobytes() + b"tb"
    )
    (tmp_path / "R-50.pkl").write_bytes(b"\x80\x02}U\x05modelccollections\nOrderedDict\n)RU\x06conv_w" + array + b"ss.")
    assert_same(read_checkpoint(str(tmp_path / "R-50.pkl"))["state_dict"], {"conv_w": torch.from_numpy(values)})


@pytest.mark.parametrize("nested", ["state_dict", "model", "model_state_dict"])
def test_tensors_are_found_where_libraries_put_them(tmp_path: Path, nested: str):
    wrapped = {f"module.{name}": tensor for name, tensor in TENSORS.items()}
    torch.save({"epoch": 3, nested: wrapped, "optimizer": {"lr": 0.5}}, tmp_path / "a.pth")
    found = read_checkpoint(str(tmp_path / "a.pth"))
    assert_same(found.pop("state_dict"))
    assert found == {"epoch": 3, "optimizer": {"lr": 0.5}}


def test_folders_of_hugging_face_open(tmp_path: Path):
    torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    assert_same(read_checkpoint(str(tmp_path))["state_dict"])
    doubled = {name: tensor * 2 for name, tensor in TENSORS.items()}
    save_file(doubled, tmp_path / "model.safetensors")  # goes first, as in transformers
    assert_same(read_checkpoint(str(tmp_path))["state_dict"], doubled)


def test_a_name_of_hugging_face_is_found_among_what_was_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name, value in (("us--small", 1.0), ("us--large", 2.0)):
        files = tmp_path / f"models--{name}" / "snapshots" / "0123"
        files.mkdir(parents=True)
        (files.parents[1] / "refs").mkdir()
        (files.parents[1] / "refs" / "main").write_text("0123")
        torch.save({"head.bias": torch.tensor(value)}, files / "pytorch_model.bin")
        (files / "config.json").write_text('{"num_attention_heads": 3}')
    found = read_checkpoint("us/large")
    assert_same(found.pop("state_dict"), {"head.bias": torch.tensor(2.0)})
    assert found == {"attention_heads": 3}


@pytest.mark.parametrize(
    ("written", "stem", "ending"), [("safetensors", "model", "safetensors"), ("torch", "pytorch_model", "bin")]
)
def test_files_in_several_parts_are_put_together(tmp_path: Path, written: str, stem: str, ending: str):
    names, places = list(TENSORS), {}
    for i, part in enumerate((names[:1], names[1:3], names[3:]), start=1):
        file = f"{stem}-0000{i}-of-00003.{ending}"
        WRITERS[written]({name: TENSORS[name] for name in part}, tmp_path / file)
        places |= dict.fromkeys(part, file)
    (tmp_path / f"{stem}.{ending}.index.json").write_text(json.dumps({"weight_map": places}))
    assert_same(read_checkpoint(str(tmp_path))["state_dict"])


def test_without_mmap_the_file_may_be_overwritten(tmp_path: Path):
    path = tmp_path / "a.pth"
    torch.save(TENSORS, path)
    found = read_checkpoint(str(path), mmap=False)["state_dict"]
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert_same(found)


class Call:
    """Calls a function as soon as it is unpickled by an unpickler that lets it."""

    def __init__(self, function: Callable, *args: Any) -> None:
        self.reduced = function, args

    def __reduce__(self) -> tuple:
        return self.reduced


MALICIOUS = {
    "torch": WRITERS["torch"],
    "torch 1.5": WRITERS["torch 1.5"],
    **{f"pickle {protocol}": partial(write_pickle, protocol=protocol) for protocol in (0, 2, 4, 5)},
}
HIDDEN = {
    "alone": lambda call: call,
    "beside tensors": lambda call: {"state_dict": {"backbone.w": np.ones(3)}, "meta": {"deep": [1, call]}},
    "as a name": lambda call: {call: 1},
    "in an array": lambda call: {"backbone.w": np.ones(3), "x": np.array([1, call], dtype=object)},
}


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("written", MALICIOUS)
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, written: str, hidden: str):
    path, marker = tmp_path / "weights.pth", tmp_path / "MARKER"
    for call, asked in (
        (Call(os.system, f"touch {marker}"), r"posix\.system"),
        (Call(eval, f"open({str(marker)!r}, 'w')"), r"(builtins\.|__builtin__\.)?eval"),
    ):
        MALICIOUS[written](HIDDEN[hidden](call), path)
        try:
            with pytest.raises(CheckpointError, match=rf"^{path} \(\d+ bytes\) is refused: it asks for {asked}, which"):
                read_checkpoint(str(path))
        finally:
            assert not marker.exists()


class ForgedType:
    """The type of an array of objects, which says that they are plain bytes."""

    def __reduce__(self) -> tuple:
        return np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)


class ForgedArray:
    """An array of one object at an address that the file chooses."""

    def __reduce__(self) -> tuple:
        reconstruct, arguments, _ = np.empty(0).__reduce__()
        return reconstruct, arguments, (1, (1,), ForgedType(), False, (4096).to_bytes(8, "little"))


@pytest.mark.parametrize("protocol", [2, 4])
def test_an_array_of_forged_addresses_is_refused(tmp_path: Path, protocol: int):
    write_pickle({"model": {"w": np.ones(3), "x": ForgedArray()}}, tmp_path / "a.pkl", protocol)
    with pytest.raises(CheckpointError, match=rf"^{tmp_path}/a\.pkl"):
        read_checkpoint(str(tmp_path / "a.pkl"))


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a server on this machine gives the files of tmp_path."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda self, *args: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("written", ["torch", "torch 1.5"])
def test_what_is_fetched_opens(tmp_path: Path, address: str, written: str):
    WRITERS[written]({"state_dict": TENSORS, "epoch": 3}, tmp_path / "a.pth")
    found = read_checkpoint(f"{address}/a.pth")
    assert_same(found["state_dict"])
    assert found["epoch"] == 3


def test_what_was_downloaded_is_kept_where_torch_keeps_it_by_address(tmp_path: Path, address: str):
    for i, folder in enumerate(("x", "y")):
        (tmp_path / folder).mkdir()
        torch.save({"state_dict": {"head.bias": torch.tensor(float(i))}}, tmp_path / folder / "a.pth")
    for _ in range(2):
        found = [float(read_checkpoint(f"{address}/{folder}/a.pth")["state_dict"]["head.bias"]) for folder in "xy"]
        assert found == [0, 1], "files of one name are not mixed up"
        for source in tmp_path.glob("?/a.pth"):
            source.unlink()  # nothing is downloaded the second time
    kept = list((tmp_path / "cache" / "hub" / "checkpoints").iterdir())
    assert len(kept) == 2
    assert all(path.name.endswith("-a.pth") for path in kept)


@pytest.mark.parametrize("written", ["torch", "torch 1.5"])
def test_code_in_what_is_fetched_is_refused_and_not_run(tmp_path: Path, address: str, written: str):
    call = Call(os.system, f"touch {tmp_path}/MARKER")
    MALICIOUS[written](HIDDEN["beside tensors"](call), tmp_path / "a.pth")
    try:
        with pytest.raises(CheckpointError, match=r"is refused: it asks for posix\.system"):
            read_checkpoint(f"{address}/a.pth")
    finally:
        assert not (tmp_path / "MARKER").exists()


def test_what_cannot_be_fetched_is_refused(address: str):
    with pytest.raises(CheckpointError, match=rf"{address}/none\.pth"):
        read_checkpoint(f"{address}/none.pth")


@pytest.mark.parametrize("cut", [0.3, 0.9, -10])
@pytest.mark.parametrize("written", WRITERS)
def test_a_file_that_was_cut_is_refused(tmp_path: Path, written: str, cut: float):
    path = tmp_path / "weights.pth"
    WRITERS[written](TENSORS, path)
    whole = path.read_bytes()
    kept = whole[: cut if cut < 0 else int(cut * len(whole))]
    path.write_bytes(kept)
    said = (
        r"(is not|cannot be read as) a checkpoint.*: expected a file of torch\.save.* cut short while it was written",
        r"is damaged: File is not a zip file\. It was cut short",
        r"is damaged: its tensors need more bytes than the file has",
    )
    message = rf"^{path}( \({len(kept)} bytes\))? ({'|'.join(said)})"
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(str(path))


def zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "these are no weights")


NO_CHECKPOINTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (
        Path.touch,
        r"\(0 bytes\) is not a checkpoint: expected a file of torch.save, safetensors, or a pickle of",
    ),
    "text": (lambda path: path.write_text("no weights\n" * 9), r"is not a checkpoint: expected a file of torch\.save"),
    "zip": (zip_of_text, r"\(\d+ bytes\) cannot be read as a checkpoint \(\S.*\): expected a file of torch"),
    "list": (
        lambda path: write_pickle([1], path, 2),
        "is not a checkpoint: expected tensors by name, got a list without",
    ),
    "tensor": (lambda path: torch.save(torch.ones(3), path), "expected tensors by name, got a Tensor without tensors"),
    "no tensors": (lambda path: torch.save({"state_dict": {}}, path), "expected tensors by name, got a dict without"),
    "words": (lambda path: write_pickle({"w": np.array(["a"])}, path, 2), "by name, got a dict without tensors"),
    "folder": (Path.mkdir, r"has no checkpoint: expected model\.safetensors or .*pytorch_model\.bin "),
}


@pytest.mark.parametrize("what", NO_CHECKPOINTS)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, what: str):
    path = tmp_path / "weights"
    write, message = NO_CHECKPOINTS[what]
    write(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(str(path))
    assert str(path) in str(caught.value)


def test_what_is_nowhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for missing in ("a.pth", "runs/of/last/week", str(tmp_path / "none"), "../b.pkl"):
        where = re.escape(os.path.abspath(missing))
        with pytest.raises(
            CheckpointError, match=rf"^There is no checkpoint {where}\. Check the path, or run the training"
        ):
            read_checkpoint(missing)
    # HF_HUB_OFFLINE is set: no name is asked for.
    message = rf"^There is no checkpoint {tmp_path}/nobody-s, and none named 'nobody-s' on Hugging Face: \S+"
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint("nobody-s")


def bytes_read() -> int:
    """Return how many bytes this process has read from files; what it maps into memory is not counted."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_file_is_read_once_however_often_it_is_opened(tmp_path: Path):
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"head.weight": torch.ones(4_000_000)}, "meta": {}}, path)
    before = bytes_read()
    for _ in range(3):
        assert read_checkpoint(str(path))["state_dict"]["head.weight"].sum() == 4_000_000
    assert bytes_read() - before == pytest.approx(path.stat().st_size, rel=0.1)


TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128, torch.bool,
         torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
         torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]  # fmt: skip
"""The types of torch that are neither quantized nor packed; the first 12 are as old as its old format."""


@pytest.mark.parametrize(("written", "types"), [("torch", TYPES), ("torch 1.5", TYPES[:12])])
def test_tensors_of_every_type_open_and_so_do_the_types(tmp_path: Path, written: str, types: list[torch.dtype]):
    values = torch.tensor([0.0, 1.0])
    tensors = {f"head.{str(dtype)[6:]}": values.to(dtype) for dtype in types}
    rest = dict(types=types, size=torch.Size([2, 3]), device=torch.device("cpu"), names={"a", "b"})
    WRITERS[written]({"state_dict": tensors | {"parameter": torch.nn.Parameter(values)}, **rest}, tmp_path / "a.pth")
    found = read_checkpoint(str(tmp_path / "a.pth"))
    state_dict = found.pop("state_dict")
    assert found == rest
    assert torch.equal(state_dict.pop("parameter"), values)
    assert [value.dtype for value in state_dict.values()] == types
    assert all(value.to(torch.complex64).real.tolist() == [0, 1] for value in state_dict.values())


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_a_storage_counts_as_many_bytes_as_torch_says():
    assert {name: getattr(torch, name)().element_size() for name in STORAGES} == STORAGES
