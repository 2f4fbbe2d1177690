# SPDX-License-Identifier: GPL-2.0-or-later
"""Physical memory as bytes: a sparse file in memory, addressed by physical address.

Nothing costs RAM before it is touched, so terabytes fit in a laptop (reading a page of the file
counts as touching it: do not search all of it, ask `written`). A table of the machine that must be
contiguous in this process is laid over the bytes where it belongs (`Ram.overlay`), as a kernel sees
its `mem_map` through the virtual memory map.

Linux: phys_to_virt(), include/asm-generic/page.h; vmemmap, mm/sparse-vmemmap.c
"""

import mmap
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import BadMachineError, BadRequestError

HOST_PAGE = mmap.PAGESIZE
MAX_BYTES = 1 << 46
"""Physical addresses that one process can map."""

_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


class Ram:
    r"""Sparse bytes from physical address 0 up to `size`; holes are simply never written.

    Parameters
    ----------
    size : int
        Bytes: the end of the machine's memory.

    Raises
    ------
    BadMachineError
        The host cannot map so many addresses.

    Examples
    --------
    >>> ram = Ram(1 << 40)
    >>> ram.view(0x1000, 4)[:] = [1, 2, 3, 4]
    >>> ram.read(0xFFE, 4)
    b'\x00\x00\x01\x02'
    >>> ram.zero(0x1000, 2)
    >>> ram.read(0x1000, 4)
    b'\x00\x00\x03\x04'
    """

    def __init__(self, size: int) -> None:
        self.size = -(-size // HOST_PAGE) * HOST_PAGE
        self._fd = -1
        self._starts: list[int] = []
        self._overlays: list[tuple[int, NDArray[np.uint8]]] = []
        if not 0 < size <= MAX_BYTES:
            raise BadMachineError(
                f"memory that ends at {size:#x}: between 1 byte and {MAX_BYTES >> 40} TiB are"
                " possible; make it smaller"
            )
        try:
            if hasattr(os, "memfd_create"):
                self._fd = os.memfd_create("physmem", os.MFD_CLOEXEC)
                os.ftruncate(self._fd, self.size)
                self._map = mmap.mmap(self._fd, self.size, flags=mmap.MAP_SHARED | _NORESERVE)
            else:
                flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
                self._map = mmap.mmap(-1, self.size, flags=flags)
        except (OSError, OverflowError, ValueError) as error:
            self._close()
            raise BadMachineError(
                f"cannot map {self.size} bytes of memory ({error}); make it smaller"
            ) from None
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            self._map.madvise(mmap.MADV_NOHUGEPAGE)  # one written byte must not cost 2 MiB
        self._file = np.frombuffer(self._map, np.uint8)
        self._later: Callable[[Ram], object] | None = None

    def write_later(self, write: "Callable[[Ram], object]") -> None:
        r"""Let a function write to the memory just before it is looked at for the first time.

        For what is large and may never be needed. A copy made before has the function, too.

        Examples
        --------
        >>> ram = Ram(1 << 20)
        >>> ram.write_later(lambda memory: memory.write(0x1000, b"ab"))
        >>> ram.read(0x1000, 3)
        b'ab\x00'
        """
        first = self._later

        def both(ram: "Ram") -> None:
            if first is not None:
                first(ram)
            write(ram)

        self._later = both

    @property
    def is_pending(self) -> bool:
        """Whether something that was put off is still to be written."""
        return self._later is not None

    def _settle(self) -> None:
        """Write what was put off."""
        if self._later is not None:
            later, self._later = self._later, None
            later(self)

    @property
    def _bytes(self) -> NDArray[np.uint8]:
        """The file, with everything written."""
        self._settle()
        return self._file

    def __del__(self) -> None:
        self._close()

    def _close(self, _close_fd: Callable[[int], None] = os.close) -> None:
        if self._fd >= 0:
            _close_fd(self._fd)  # the mappings keep the bytes
            self._fd = -1

    @property
    def whole(self) -> NDArray[np.uint8]:
        """All bytes by physical address, for kernels; overlays are not in it."""
        return self._bytes

    def view(self, paddr: int, size: int) -> NDArray[np.uint8]:
        """Bytes [paddr, paddr + size) to read and write; no copy.

        Raises
        ------
        BadRequestError
            Not inside the memory, or partly in an overlay (`read` and `write` can do that).
        """
        pieces = list(self._pieces(paddr, size))
        if len(pieces) > 1:
            raise BadRequestError(
                f"bytes [{paddr:#x}, {paddr + size:#x}) lie in {len(pieces)} arrays: read or write"
                " them instead"
            )
        return pieces[0] if pieces else self._bytes[:0]

    def read(self, paddr: int, size: int) -> bytes:
        """Copy of bytes [paddr, paddr + size).

        Raises
        ------
        BadRequestError
            Not inside the memory.
        """
        return b"".join(piece.tobytes() for piece in self._pieces(paddr, size))

    def write(self, paddr: int, data: bytes) -> None:
        """Store bytes.

        Raises
        ------
        BadRequestError
            Not inside the memory.
        """
        at = 0
        for piece in self._pieces(paddr, len(data)):
            piece[:] = np.frombuffer(data, np.uint8, len(piece), at)
            at += len(piece)

    def zero(self, paddr: int, size: int) -> None:
        """Set bytes to zero; whole pages are given back to the host instead.

        Raises
        ------
        BadRequestError
            Not inside the memory.
        """
        at = paddr
        for piece in self._pieces(paddr, size):
            if np.may_share_memory(piece, self._bytes):
                self._zero_file(at, len(piece))
            else:
                piece[:] = 0
            at += len(piece)

    def _zero_file(self, start: int, size: int) -> None:
        first = -(-start // HOST_PAGE) * HOST_PAGE
        end = (start + size) // HOST_PAGE * HOST_PAGE
        if first >= end or not self._punch(first, end - first):
            self._bytes[start : start + size] = 0
            return
        self._bytes[start:first] = 0
        self._bytes[end : start + size] = 0

    def _punch(self, start: int, size: int) -> bool:
        advice = getattr(mmap, "MADV_REMOVE" if self._fd >= 0 else "MADV_DONTNEED", None)
        if advice is None:
            return False
        try:
            self._map.madvise(advice, start, size)
        except OSError:
            return False
        return True

    def overlay(self, paddr: int, array: NDArray[np.uint8]) -> None:
        r"""Let the bytes at `paddr` live in an array of the caller's from now on.

        So a table that must lie somewhere else in this process (a machine's `mem_map`, contiguous
        over all nodes) is at its physical addresses all the same. What is in memory there now is
        no longer seen; lay arrays over memory before it is used.

        Raises
        ------
        BadRequestError
            Outside the memory, or over another array.

        Examples
        --------
        >>> ram, table = Ram(1 << 20), np.zeros(64, np.uint8)
        >>> ram.overlay(0x3000, table)
        >>> table[5] = 42
        >>> ram.read(0x3004, 3)
        b'\x00*\x00'
        """
        end = paddr + len(array)
        if not 0 <= paddr <= end <= self.size:
            raise BadRequestError(f"array at [{paddr:#x}, {end:#x}): not inside memory")
        at = bisect_right(self._starts, paddr)
        before = self._overlays[at - 1] if at else None
        after = self._overlays[at] if at < len(self._overlays) else None
        if (before and before[0] + len(before[1]) > paddr) or (after and after[0] < end):
            raise BadRequestError(f"array at [{paddr:#x}, {end:#x}): another one lies there")
        if len(array):
            self._starts.insert(at, paddr)
            self._overlays.insert(at, (paddr, array))

    def _pieces(self, paddr: int, size: int) -> Iterator[NDArray[np.uint8]]:
        """Bytes [paddr, paddr + size), in as few arrays as hold them."""
        if not 0 <= paddr <= paddr + size <= self.size:
            raise BadRequestError(
                f"bytes [{paddr:#x}, {paddr + size:#x}) are not inside memory [0, {self.size:#x})"
            )
        end = paddr + size
        at = max(bisect_right(self._starts, paddr) - 1, 0)
        while paddr < end:
            start, array = self._overlays[at] if at < len(self._overlays) else (end, self._bytes)
            behind = start + len(array)
            if paddr < start:
                stop = min(end, start)
                yield self._bytes[paddr:stop]
            elif paddr < behind:
                stop = min(end, behind)
                yield array[paddr - start : stop - start]
            else:
                stop = paddr
                at += 1
            paddr = stop

    def written(self) -> Iterator[tuple[int, int]]:
        """Physical ranges (start, end) that may hold anything but zeros, in order; no overlays."""
        self._settle()
        yield from self._written()

    def _written(self) -> Iterator[tuple[int, int]]:
        if self._fd < 0:
            yield 0, self.size
            return
        at = 0
        while at < self.size:
            try:
                start = os.lseek(self._fd, at, os.SEEK_DATA)
            except OSError:  # no data behind `at`
                return
            at = os.lseek(self._fd, start, os.SEEK_HOLE)
            yield start, at

    def is_written(self, paddr: int, size: int) -> bool:
        """Whether bytes may hold anything but zeros (overlays are not looked at)."""
        self._settle()
        if self._fd < 0:
            return True
        try:
            return os.lseek(self._fd, paddr, os.SEEK_DATA) < paddr + size
        except OSError:  # no data from there on
            return False

    def overlays(self) -> Iterator[tuple[int, int]]:
        """Physical ranges (start, end) that live in arrays laid over the memory, in order."""
        for start, array in self._overlays:
            yield start, start + len(array)

    def stored(self, paddr: int, size: int) -> bytes:
        """Copy of bytes of the file itself, under any overlay: for saving."""
        return self._bytes[paddr : paddr + size].tobytes()

    def copy(self) -> "Ram":
        """Independent memory with the same bytes, without overlays; costs what was written."""
        made = Ram(self.size)
        for start, end in self._written():
            made._file[start:end] = self._file[start:end]
        made._later = self._later
        return made
