# SPDX-License-Identifier: GPL-2.0-or-later
"""C structs declared by annotations: one memory layout, seen by native code and by plain Python.

A class body with annotations becomes a NumPy dtype in C layout. Compiled kernels see its records by
pointer; with `PHYSMEM_PURE=1` the same kernels run as plain Python over ctypes views of the same
bytes (ctypes gives Python ints and wraps narrow stores as C does; NumPy scalars would not).

    @struct
    class Zone:
        managed_pages: i64
        lowmem_reserve: Annotated[Array[i64], 6]     # inside the record
        free_area: Annotated[Array[FreeArea], 11]    # records inside the record
        mem_map: Array[Page]                         # elsewhere: address and length inside

An array elsewhere is reached as if it were inside (`zone.mem_map[pfn].order`). Its attribute name
stands for one element type in the whole program.
"""

import ctypes
import inspect
import os
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
)

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

PURE = os.environ.get("PHYSMEM_PURE") == "1"
"""True when kernels run as plain Python (debugger, coverage, classroom)."""

if TYPE_CHECKING:
    u8: TypeAlias = int
    u16: TypeAlias = int
    u32: TypeAlias = int
    i8: TypeAlias = int
    i32: TypeAlias = int
    i64: TypeAlias = int
else:

    class Scalar:
        """An integer type of C: its NumPy dtype and its ctypes type."""

        def __init__(self, name: str, ctype: Any) -> None:
            self.dtype = np.dtype(name)
            self.ctype = ctype

    u8 = Scalar("u1", ctypes.c_uint8)
    u16 = Scalar("u2", ctypes.c_uint16)
    u32 = Scalar("u4", ctypes.c_uint32)
    i8 = Scalar("i1", ctypes.c_int8)
    i32 = Scalar("i4", ctypes.c_int32)
    i64 = Scalar("i8", ctypes.c_int64)


class Array(Generic[T]):
    """A one-dimensional array of scalars or records; as a field alone: stored elsewhere."""

    if TYPE_CHECKING:

        def __getitem__(self, index: int) -> T: ...
        def __setitem__(self, index: int, value: T) -> None: ...
        def __len__(self) -> int: ...


BOUND: dict[str, np.dtype[Any]] = {}
"""Attribute name of each array stored elsewhere -> dtype of its elements."""
PLAIN: dict[str, str] = {}
"""Attribute name of each field stored inside its record -> the struct that has it."""
CTYPE_OF_DTYPE: dict[np.dtype[Any], Any] = {}
"""dtype of each struct -> its ctypes twin."""


def element(annotation: Any) -> Any:
    """`u8` of `Array[u8]`, or None when the annotation is no array."""
    origin: Any = get_origin(annotation)
    return get_args(annotation)[0] if origin is Array else None


def _bind(owner: str, name: str, dtype: np.dtype[Any]) -> None:
    if name in PLAIN:
        msg = f"{owner}.{name}: {PLAIN[name]} has a plain field of this name"
        raise TypeError(msg)
    if BOUND.setdefault(name, dtype) != dtype:
        msg = f"{owner}.{name}: array attribute already stands for elements of {BOUND[name]}"
        raise TypeError(msg)


def _note_plain(owner: str, name: str) -> None:
    """Refuse a plain field named like an array elsewhere: compiled code would mix them up."""
    if name in BOUND:
        msg = f"{owner}.{name}: an array stored elsewhere has this name already"
        raise TypeError(msg)
    PLAIN.setdefault(name, owner)


def struct(cls: type[T]) -> type[T]:
    """Make a record type of an annotated class; the result has `dtype` and `ctype`."""
    fields: list[tuple[Any, ...]] = []
    cfields: list[tuple[str, Any]] = []
    arrays: dict[str, Any] = {}
    hints: dict[str, Any] = inspect.get_annotations(cls, eval_str=True)
    for name, annotation in hints.items():
        if get_origin(annotation) is Annotated:
            inner, length = get_args(annotation)[:2]
            of: Any = element(inner)
            _note_plain(cls.__name__, name)
            fields.append((name, of.dtype, (length,)))
            cfields.append((name, of.ctype * length))
        elif (of := element(annotation)) is not None:
            _bind(cls.__name__, name, of.dtype)
            arrays[name] = of
            fields += [(f"{name}_addr", np.int64), (f"{name}_len", np.int64)]
            cfields += [(f"{name}_addr", ctypes.c_int64), (f"{name}_len", ctypes.c_int64)]
        else:
            _note_plain(cls.__name__, name)
            fields.append((name, annotation.dtype))
            cfields.append((name, annotation.ctype))
    made: Any = cls
    made.dtype = np.dtype(fields, align=True)
    ctype: Any = type(cls.__name__, (ctypes.Structure,), {"_fields_": cfields})
    for name, of in arrays.items():
        setattr(ctype, name, _far_array(name, of.ctype))
    made.ctype = ctype
    CTYPE_OF_DTYPE[made.dtype] = ctype
    return cls


def _far_array(name: str, ctype: Any) -> property:
    """Property of the ctypes twin that views the array that (address, length) point to."""
    views: dict[tuple[int, int], Any] = {}

    def view(record: Any) -> Any:
        key = (getattr(record, f"{name}_addr"), getattr(record, f"{name}_len"))
        found = views.get(key)
        if found is None:
            found = views[key] = (ctype * key[1]).from_address(key[0])
        return found

    return property(view)


def dtype_of(cls: Any) -> np.dtype[Any]:
    """NumPy dtype of a struct."""
    dtype: np.dtype[Any] = cls.dtype
    return dtype


def address(array: NDArray[Any]) -> int:
    """Address of the first byte of an array; the caller keeps the array alive."""
    return int(array.ctypes.data)


def attach(record: NDArray[Any], name: str, array: NDArray[Any]) -> None:
    """Point the field `name` of a record (a 0-d or 1-element view) at an array stored elsewhere."""
    record[f"{name}_addr"] = address(array)
    record[f"{name}_len"] = len(array)
