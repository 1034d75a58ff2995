"""Published codes (``exstyle_code.npy``, ``instyle_code.npy``) read as data.

They are NumPy files that hold a pickled dict: file name -> float32 array, (1, S, D). Nothing is unpickled here: a
pickle is a list of operations, and those that a dict of arrays needs are followed by hand, making nothing but numbers,
texts, bytes, lists, tuples and dicts. A file with any other operation, or any other name to be called, is refused.
"""

from __future__ import annotations

import io
import pickletools
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.errors import CheckpointError, must
from training.codes import Codes, CodeTable, code_table

MAX_BYTES = 1 << 30
CONVERT = (
    "If you trust where it is from, load it with NumPy and write both dicts with training.codes.write_codes; "
    "else use codes of another source"
)
_CALLS = {f"{package}.multiarray _reconstruct": "array" for package in ("numpy.core", "numpy._core")} | {
    "numpy ndarray": "class",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
}
_VALUES = frozenset(
    ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING")
) | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
_CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: Mapping[str, type] = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


@dataclass(slots=True)
class _Call:
    """What would be called: a name out of `_CALLS`, and what it was given."""

    kind: str
    given: tuple[Any, ...] = ()
    state: tuple[Any, ...] = ()


@dataclass(slots=True)
class _Machine:
    """The stack and memory of a pickle's operations."""

    stack: list[Any] = field(default_factory=list)
    memory: dict[int, Any] = field(default_factory=dict)

    def since_mark(self) -> list[Any]:
        place = max(i for i, value in enumerate(self.stack) if value is _MARK)
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def take(self, num: int) -> list[Any]:
        found = self.stack[len(self.stack) - num :]
        if len(found) < num:
            raise ValueError("an operation without its operands")
        del self.stack[len(self.stack) - num :]
        return found

    def follow(self, name: str, argument: Any) -> None:
        """One operation."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(self.take(_TUPLES[name])))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self.stack.append(_called(argument if name == "GLOBAL" else " ".join(map(str, self.take(2)))))
        elif name not in ("PROTO", "FRAME", "STOP"):
            self._shape(name, argument)

    def _shape(self, name: str, argument: Any) -> None:
        match name:
            case "MARK":
                self.stack.append(_MARK)
            case "TUPLE":
                self.stack.append(tuple(self.since_mark()))
            case "APPEND" | "APPENDS":
                values = self.take(1) if name == "APPEND" else self.since_mark()
                self._top(list).extend(values)
            case "SETITEM" | "SETITEMS":
                values = self.take(2) if name == "SETITEM" else self.since_mark()
                self._top(dict).update(zip(values[::2], values[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                self.memory[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memory[len(self.memory)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memory[argument])
            case "REDUCE":
                call, given = self.take(2)
                self.stack.append(_reduced(call, given))
            case "BUILD":
                (state,) = self.take(1)
                self._top(_Call).state = tuple(state)
            case _:
                raise ValueError(f"the operation {name}")

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"no {kind.__name__} where there must be one")
        return self.stack[-1]


def read_published_codes(extrinsic: Path, intrinsic: Path) -> CodeTable:
    """Codes of two published files.

    Args:
        extrinsic: ``exstyle_code.npy``, or ``refined_exstyle_code.npy``.
        intrinsic: ``instyle_code.npy``.

    Returns:
        The codes of the pictures that both name, by the file's name without its ending.

    Raises:
        CheckpointError: a file is no dict of arrays, or does anything else than hold one; the two share no picture.
    """
    outer, inner = read_published_dict(extrinsic), read_published_dict(intrinsic)
    both = sorted(outer.keys() & inner.keys())
    if not both:
        rule = f"name pictures that {intrinsic.name} names"
        raise CheckpointError(must(str(extrinsic), rule, "none of them", "Use the two files of one style"))
    return code_table(
        {Path(name).stem: Codes(outer[name], inner[name]) for name in both},
        {"from": [extrinsic.name, intrinsic.name]},
    )


def read_published_dict(path: Path) -> dict[str, Tensor]:
    """The arrays of one published file by their names: float32, (S, D) each.

    Raises:
        CheckpointError: the file holds anything else.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(must(str(path), f"be at most {MAX_BYTES >> 30} GiB", f"{path.stat().st_size} bytes"))
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(must(str(path), "be readable", error.strerror or str(error))) from None
    try:
        return _codes(_followed(_pickled(data)))
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, tokenize.TokenError) as error:
        rule = "be a NumPy file of a dict of float32 arrays (1, S, D)"
        raise CheckpointError(must(str(path), rule, " ".join(str(error).split())[:200], CONVERT)) from None


def _pickled(data: bytes) -> bytes:
    """What stands behind the header of a NumPy file of one object."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if shape != () or dtype != np.dtype(object):
        raise ValueError(f"an array {shape} of {dtype}")
    return file.read()


def _followed(pickled: bytes) -> Any:
    machine = _Machine()
    for operation, argument, _ in pickletools.genops(pickled):
        machine.follow(operation.name, argument)
    (result,) = machine.stack
    return result


def _called(name: str) -> _Call:
    if name not in _CALLS:
        raise ValueError(f"a call of {name}")
    return _Call(_CALLS[name])


def _reduced(call: Any, given: Any) -> Any:
    if not isinstance(call, _Call) or call.given or not isinstance(given, tuple):
        raise ValueError("a call of what is no name")
    if call.kind == "encode":  # how old pickles hold bytes: a text of the first 256 letters
        text, coding = given
        if coding != "latin1":
            raise ValueError(f"bytes as {coding}")
        return text.encode("latin1")
    return _Call(call.kind, given)


def _codes(outermost: Any) -> dict[str, Tensor]:
    """Out of the array of one object that a file holds."""
    (found,) = outermost.state[4]
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__}")
    return {str(name): _tensor(name, array) for name, array in found.items()}


def _tensor(name: Any, array: Any) -> Tensor:
    """Of what would have become an array: (version, shape, type, whether the columns come first, bytes)."""
    if not isinstance(name, str) or not isinstance(array, _Call) or array.kind != "array":
        raise ValueError(f"{name!r}, which is no array with a name")
    _, shape, dtype, columns_first, data = array.state
    order = dtype.state[1] if dtype.state else "="
    if dtype.kind != "dtype" or dtype.given[0] != "f4" or order not in ("<", "=", "|") or columns_first:
        raise ValueError(f"{name!r}, which is not float32 in rows")
    if len(shape) != 3 or shape[0] != 1 or not isinstance(data, bytes):
        raise ValueError(f"{name!r} of shape {shape}")
    return torch.from_numpy(np.frombuffer(data, dtype="<f4").reshape(shape)[0].copy())
