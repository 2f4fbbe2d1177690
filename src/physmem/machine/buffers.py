# SPDX-License-Identifier: GPL-2.0-or-later
"""Buffers that cost nothing until they are written: one byte array per table of the machine.

Reading a page that was never written costs no RAM either, so looking for what was written may look
everywhere; writing zeros would cost. All copies therefore go chunk by chunk, a chunk being a page.
"""

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import BadMachineError

CHUNK = 4096
"""Bytes: one page of the host on most machines."""

_GROUP = 4096
"""Chunks looked at together."""
_MAP_NORESERVE = 0x4000 if hasattr(mmap, "MAP_ANONYMOUS") else 0
_HUGE_FROM = 1 << 30


def reserve(count: int, dtype: Any) -> NDArray[Any]:
    """Array of zeros in memory of its own, without a promise of RAM behind it.

    Parameters
    ----------
    count : int
        Elements.
    dtype : dtype
        Of an element.

    Raises
    ------
    BadMachineError
        The host cannot even reserve the addresses.
    """
    dtype = np.dtype(dtype)
    size = max(count * dtype.itemsize, 1)
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        memory = mmap.mmap(-1, size, flags=flags)
        if size >= _HUGE_FROM and hasattr(mmap, "MADV_NOHUGEPAGE"):
            # A large machine touches one frame in a thousand; a huge page for each is all of it.
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    except (OSError, OverflowError, ValueError) as error:
        msg = f"cannot reserve {size} bytes for the machine's tables ({error}); make it smaller"
        raise BadMachineError(msg) from None
    return np.frombuffer(memory, dtype=dtype, count=count)


def _written(array: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.intp]]]:
    """Groups of chunks: number of the first, bytes (chunks x CHUNK), which hold not only zeros."""
    data = array.view(np.uint8).reshape(-1)
    whole = len(data) // CHUNK * CHUNK
    step = CHUNK * _GROUP
    for at in range(0, whole, step):
        group = data[at : min(at + step, whole)].reshape(-1, CHUNK)
        yield at // CHUNK, group, np.flatnonzero(group.view(np.uint64).max(axis=1))
    rest = data[whole:].reshape(1, -1)
    if rest.any():
        yield whole // CHUNK, rest, np.zeros(1, np.intp)


def copy_sparse(source: NDArray[Any], target: NDArray[Any]) -> None:
    """Copy what was written; leave untouched what is zero in both (keeps sparse memory sparse)."""
    data = target.view(np.uint8).reshape(-1)
    for first, group, used in _written(source):
        at = first * CHUNK
        target_group = data[at : at + group.size].reshape(group.shape)
        target_group[used] = group[used]


def written_chunks(array: NDArray[Any]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Chunks that hold anything but zeros, some at a time: their numbers, and their bytes joined.

    The last chunk of an array may be shorter than the others.
    """
    for first, group, used in _written(array):
        if len(used):
            yield used.astype(np.int64) + first, group[used].reshape(-1)


def load_chunks(array: NDArray[Any], numbers: NDArray[np.int64], content: bytes) -> None:
    """Undo one step of `written_chunks` in an array of zeros.

    Raises
    ------
    ValueError
        The numbers do not fit the array or the bytes.
    """
    data = array.view(np.uint8).reshape(-1)
    chunks = -(-len(data) // CHUNK)
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < chunks:
        raise ValueError("a chunk lies outside the table")
    at = 0
    for number in numbers.tolist():
        start = number * CHUNK
        size = min(CHUNK, len(data) - start)
        data[start : start + size] = np.frombuffer(content, np.uint8, size, at)
        at += size
    if at != len(content):
        raise ValueError("the chunks are longer or shorter than told")
