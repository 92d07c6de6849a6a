"""Inspect what a pickle would build before anything is built: each name, size and count in it is checked.

Python's and torch's own unpicklers take sizes from the file: nine bytes make them allocate gigabytes. Here, Python's unpickler
in pure Python reads the pickle. It never reads past the end of the file, and it creates none of the objects that are named.
"""

import mmap
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

from clipbert_mm.checkpoint.arrays import STAND_INS, PlainArray, PlainType

MAX_READS = 4_000_000
"""Most operations and values of a pickle; a checkpoint of a training has about ten thousand."""
MAX_COPIES = 8
"""Largest total size of the arguments of all calls, which are copied, as a multiple of the pickle's size."""
EXCLUDED = (
    *(pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.PERSID),
    *(pickle.LONG4, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
)
"""Operations that files of weights do not need, such as other ways to create objects, long numbers, buffers."""
STORAGES = dict(
    ComplexDoubleStorage=16,
    ComplexFloatStorage=8,
    DoubleStorage=8,
    LongStorage=8,
    FloatStorage=4,
    IntStorage=4,
    HalfStorage=2,
    BFloat16Storage=2,
    ShortStorage=2,
    CharStorage=1,
    ByteStorage=1,
    BoolStorage=1,
    UntypedStorage=1,
)
"""Bytes per value of torch's storages."""
TENSORS = {
    *("collections.OrderedDict", "collections.Counter", "_codecs.encode"),
    *(
        "torch.Size",
        "torch.device",
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
        "torch._tensor._rebuild_from_type_v2",
    ),
    *(
        f"torch._utils._rebuild_{name}"
        for name in ("tensor", "tensor_v2", "tensor_v3", "parameter", "parameter_with_state")
    ),
    *(f"torch.{name}" for name in ("float64", "float32", "float16", "bfloat16", "complex64", "complex128", "bool")),
    *(f"torch.{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *(f"torch.float8_{name}" for name in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz")),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "getattr")),
    "mmengine.logging.history_buffer.HistoryBuffer",
    *STAND_INS,
}
"""Names that a file of torch.save may contain, for tensors, containers, numpy arrays and MMEngine's scalar history."""


class Reader:
    """Read one pickle or several, and count the reads; a size past the end of the data is an error.

    Args:
        data: The bytes, or a memory-mapped file.
    """

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data = memoryview(data)
        self.position = 0
        self.reads = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            pickle.UnpicklingError: If too few bytes are left, or the pickle has too many operations.
        """
        self.reads += 1
        end = self.position + size
        if self.reads > MAX_READS:
            raise pickle.UnpicklingError(f"it has more than {MAX_READS:,} operations")
        if size < 0 or end > len(self.data):
            raise pickle.UnpicklingError(f"a value of {size:,} bytes, and {len(self.data) - self.position:,} are left")
        value = bytes(self.data[self.position : end])
        self.position = end
        return value

    def readline(self) -> bytes:
        """Return the bytes up to the end of a line."""
        for start in range(self.position, len(self.data), 4096):
            offset = bytes(self.data[start : start + 4096]).find(b"\n")
            if offset >= 0:
                return self.read(start + offset + 1 - self.position)
        raise pickle.UnpicklingError("a line without an end")


class _Operations(dict):
    """The allowed operations of an unpickler."""

    def __missing__(self, code: int) -> Callable:
        raise pickle.UnpicklingError(f"an operation {code:#x}, which files of weights do not need")


_PythonUnpickler: Any = pickle._Unpickler  # mypy's types of it are incomplete


class BoundedUnpickler(_PythonUnpickler):
    """Unpickle arrays in plain containers, as in detectron2's ``.pkl`` files, in memory proportional to the file's size.

    Args:
        reader: The bytes.
    """

    dispatch: ClassVar[dict[int, Callable]] = _Operations(
        {code: load for code, load in _PythonUnpickler.dispatch.items() if bytes([code]) not in EXCLUDED}
    )
    names: ClassVar[dict[str, Any]] = {}

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader, encoding="latin1")  # bytes of Python 2
        self.bytes_left = MAX_COPIES * len(reader.data) + 2**20

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        """Return the replacement of a name.

        Raises:
            pickle.UnpicklingError: If it is neither one of numpy's names nor a plain container.
        """
        if f"{module}.{name}" not in self.names:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return self.names[f"{module}.{name}"]

    def _spend(self, values: Any) -> None:  # noqa: ANN401
        """Count the size of a call's arguments, with repeated values counted each time."""
        todo = [values]
        while todo:
            value = todo.pop()
            self.bytes_left -= len(value) + 1 if isinstance(value, (str, bytes, bytearray)) else 1
            if self.bytes_left < 0:
                raise pickle.UnpicklingError("it repeats values until they need far more memory than the file")
            if isinstance(value, dict):
                todo += value.values()
            elif isinstance(value, (list, tuple, set)):
                todo += value

    def _check_keys(self, keys: list[Any]) -> None:
        for key in keys:
            if not isinstance(key, (str, bytes, int, float, type(None))):
                raise pickle.UnpicklingError(f"a key of type {type(key).__name__}")

    def load_frame(self) -> None:
        """Skip the size of a frame, which is not needed."""
        self.read(8)

    def load_bytearray8(self) -> None:
        """Read a bytearray; its memory is allocated after its bytes were read."""
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def load_reduce(self) -> None:
        """Call a function."""
        self._spend(self.stack[-1])
        super().load_reduce()

    def load_newobj(self) -> None:
        """Create an object."""
        self._spend(self.stack[-1])
        super().load_newobj()

    def load_build(self) -> None:
        """Set the state of an array."""
        if not isinstance(self.stack[-2], (PlainArray, PlainType, Nothing)):
            raise pickle.UnpicklingError(f"a state for a {type(self.stack[-2]).__name__}")
        self._spend(self.stack[-1])
        super().load_build()

    def load_dict(self) -> None:
        """Create a dict of the values since the last mark."""
        self._check_keys(self.stack[::2])
        super().load_dict()

    def load_setitem(self) -> None:
        """Put an item into a dict."""
        self._check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        """Put items into a dict."""
        self._check_keys(self.stack[::2])
        super().load_setitems()

    dispatch.update(
        {
            pickle.FRAME[0]: load_frame,
            pickle.BYTEARRAY8[0]: load_bytearray8,
            pickle.REDUCE[0]: load_reduce,
            pickle.NEWOBJ[0]: load_newobj,
            pickle.BUILD[0]: load_build,
            pickle.DICT[0]: load_dict,
            pickle.SETITEM[0]: load_setitem,
            pickle.SETITEMS[0]: load_setitems,
        }
    )


class Nothing:
    """Replace any object of a pickle; it accepts every argument, state and item, and keeps none."""

    size: ClassVar[int | None] = None
    """Bytes per value, if it replaces one of torch's storages."""

    def __new__(cls, *arguments: Any) -> "Nothing":  # noqa: ANN401, D102
        return super().__new__(cls)

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401
        pass

    def __setstate__(self, state: Any) -> None:  # noqa: ANN401
        pass

    def __setitem__(self, key: Any, value: Any) -> None:  # noqa: ANN401
        pass


class OnlyNamed(Nothing):
    """Replace ``torch.Tensor``, which files name as a type; calling it with a size would allocate memory."""

    def __new__(cls, *arguments: Any) -> "OnlyNamed":  # noqa: ANN401, D102
        raise pickle.UnpicklingError("a tensor of a size without values")


class Inspector(BoundedUnpickler):
    """Read a pickle of torch.save without creating its objects.

    Args:
        reader: The bytes.
        check_storage: Called with the key of each storage and its number of bytes; raises if the file does not have them.
    """

    names: ClassVar[dict[str, Any]] = dict.fromkeys(TENSORS, Nothing) | {
        f"torch.{'storage.' * (name == 'UntypedStorage')}{name}": type(name, (Nothing,), {"size": size})
        for name, size in STORAGES.items()
    }
    names["torch.Tensor"] = OnlyNamed

    def __init__(self, reader: Reader, check_storage: Callable[[str, int], None]) -> None:
        super().__init__(reader)
        self.check_storage = check_storage

    def persistent_load(self, pid: Any) -> Nothing:  # noqa: ANN401
        """Check the storage of a tensor.

        Raises:
            pickle.UnpicklingError: If it is not a storage, or larger than in the file.
        """
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise pickle.UnpicklingError("a reference to something that is not a tensor's storage")
        storage_type, key, _, count = pid[1:5]
        size = getattr(storage_type, "size", None)
        if size is None or not isinstance(count, int) or count < 0 or not isinstance(key, (str, int)):
            raise pickle.UnpicklingError("a storage without a type or a size")
        self.check_storage(str(key), count * size)
        return Nothing()
