# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading page tables: translations, all leaves, and single entries by their generic names.

Linux: lookup_address(), arch/x86/mm/pat/set_memory.c; ptdump, mm/ptdump.c
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib import errors
from physmem.lib.jit import ready
from physmem.lib.ram import Ram
from physmem.lib.struct import address, attach
from physmem.pgtable import record as rec
from physmem.pgtable.fill_record import make_record
from physmem.pgtable.format import NAMES, U64, Format, signed
from physmem.pgtable.leaves import ROW, do_collect
from physmem.pgtable.touch import do_touch
from physmem.pgtable.walk import do_translate, do_walk
from physmem.pgtable.walked import Walk, make_walk, rwx

_ACCESS = {"r": rec.READ, "w": rec.WRITE, "x": rec.EXEC, "u": rec.USER}
_MERGE = {"none": 0, "memory": 1, "attributes": 2}
_ROWS = 4096


@dataclass(frozen=True)
class Leaf:
    """A run of equal leaves.

    Attributes
    ----------
    va, end : int
        Virtual addresses [va, end).
    paddr : int
        Where the first leads.
    size : int
        Bytes of one leaf.
    flags : int
        An entry without its address.
    kernel, user : str
        What the kernel and a user may do, as in "rw-".
    """

    va: int
    end: int
    paddr: int
    level: str
    size: int
    flags: int
    kernel: str
    user: str


@dataclass(frozen=True)
class Slot:
    """Place of an entry: generic level, physical address of the entry, position in hardware."""

    name: str
    paddr: int
    position: int


class TableReader:
    """A page table to look at: its format, the bytes it lies in, the roots."""

    def __init__(
        self, fmt: Format, ram: Ram, root: int = 0, root_high: int = 0, *, kernel: bool = True
    ) -> None:
        self.format = fmt
        self.ram = ram
        self.record = make_record(fmt, ram, kernel=kernel)
        self.handle = address(self.record)
        self._row: Any = self.record[0]
        self._row["root"], self._row["root_high"] = root, root_high
        self._walk = ready(do_walk)

    @property
    def nr_tables(self) -> int:
        """Pages that hold tables of this page table, the top one among them."""
        return int(self._row["nr_tables"])

    def tables_by_level(self) -> dict[str, int]:
        """Number of tables of each generic level, counted from the entries; folded levels have 0.

        Of formats with one root the lower half counts: the upper one is the kernel's.
        """
        fmt = self.format
        found = dict.fromkeys(NAMES, 0)
        dtype = np.uint32 if fmt.entry_bytes == 4 else np.uint64
        places = [self.root]
        for position, level in enumerate(fmt.levels):
            found[level.name] = len(places)
            if position + 1 == len(fmt.levels):
                break
            below = []
            size = fmt.entry_bytes << level.bits
            for paddr in places:
                entries = np.frombuffer(self.ram.read(paddr, size), dtype)
                if position == 0 and not fmt.two_roots:
                    share = 3 if fmt.va_bits == 32 else 2
                    entries = entries[: len(entries) * share // 4]
                used = entries[entries != 0].tolist()
                below += [fmt.table_address(e) for e in used if fmt.is_table(e, position)]
            places = below
        return found

    @property
    def root(self) -> int:
        """Physical address of the top table (of the lower half)."""
        return int(self._row["root"])

    @property
    def root_high(self) -> int:
        """Physical address of the top table of the upper half."""
        return int(self._row["root_high" if self.format.two_roots else "root"])

    # -- following addresses ----------------------------------------------------------------------

    def translate(self, va: int, access: str = "") -> Walk:
        """Follow an address through all levels.

        Parameters
        ----------
        va : int
            Virtual address, 0 .. 2**64 - 1.
        access : str
            Of "r", "w", "x": the access to allow; with "u" a user's. Empty: any.

        Returns
        -------
        Walk
            Physical address, each level's entry, or the reason of the fault.

        Raises
        ------
        BadRequestError
            No such access, or an address of more than 64 bits.

        Examples
        --------
        >>> from physmem.pgtable.formats import page_table_format
        >>> TableReader(page_table_format("x86_64"), Ram(4096)).translate(1 << 50).reason
        'not_canonical'
        """
        if not 0 <= va <= U64 or not set(access) <= set(_ACCESS):
            raise errors.BadRequestError(f"address {va:#x}, access {access!r}: no such access")
        want = sum(_ACCESS[sign] for sign in set(access))
        code = self._walk(self.handle, signed(va), want)
        return make_walk(self.format, self._row, va, code)

    def touch(self, va: int, access: str = "r", *, managed: bool = False) -> Walk:
        """`translate` as hardware does it: accessed and dirty bits are set in memory.

        Parameters
        ----------
        managed : bool
            arm64 whose hardware manages these bits (TCR.HA, TCR.HD); else it never sets any.

        Raises
        ------
        BadRequestError
            No such access, or an address of more than 64 bits.
        """
        if not 0 <= va <= U64 or not set(access) <= set(_ACCESS):
            raise errors.BadRequestError(f"address {va:#x}, access {access!r}: no such access")
        want = sum(_ACCESS[sign] for sign in set(access))
        code = ready(do_touch)(self.handle, signed(va), want, managed)
        return make_walk(self.format, self._row, va, code)

    def translate_many(self, addresses: NDArray[Any]) -> NDArray[np.int64]:
        """Physical addresses (int64 [n]) of virtual ones (any 64-bit integers [n]); -1: a fault.

        Examples
        --------
        >>> from physmem.pgtable.formats import page_table_format
        >>> table = TableReader(page_table_format("x86_64"), Ram(4096))
        >>> table.translate_many(np.array([0, 4096]))
        array([-1, -1])
        """
        given: Any = np.ascontiguousarray(addresses)
        given = given.view(np.int64) if given.dtype.itemsize == 8 else given.astype(np.int64)
        out: Any = np.empty(len(given), np.int64)
        attach(self._row, "queries", given)
        attach(self._row, "answers", out)
        ready(do_translate)(self.handle)
        found: NDArray[np.int64] = out
        return found

    def leaves(
        self, start: int = 0, end: int = 1 << 64, *, merge: str = "memory"
    ) -> Iterator[Leaf]:
        """All leaves in [start, end), in order of unsigned addresses.

        Parameters
        ----------
        merge : str
            "none"; "memory": those with equal attributes that continue each other in memory are
            one; "attributes": wherever they lead, as the kernel's ptdump does.
        """
        out: Any = np.empty(_ROWS * ROW, np.int64)
        run = ready(do_collect)
        waiting: Leaf | None = None
        for first, last in self._halves(start, end):
            at = first
            while at < last:
                rows = run(self.handle, at, last, _MERGE[merge], out)
                for row in out[: rows * ROW].reshape(-1, ROW).tolist():
                    leaf = self._leaf(row)
                    if waiting is not None and self._joins(waiting, leaf, merge):
                        leaf = Leaf(waiting.va, leaf.end, waiting.paddr, *_rest(waiting))
                    elif waiting is not None:
                        yield waiting
                    waiting = leaf
                if at == int(self._row["done"]):
                    raise errors.CorruptStateError("page_table", "a table lies outside of memory")
                at = int(self._row["done"])
        if waiting is not None:
            yield waiting

    def _halves(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Parts of a range of unsigned addresses that the format has, as signed numbers."""
        half = 1 << self.format.canonical_shift
        for low, high in ((0, half), ((1 << 64) - half, 1 << 64))[: 2 if self.format.signed else 1]:
            first, last = max(start, low), min(end, high)
            if first < last:
                yield signed(first), signed(last - 1) + 1

    def _leaf(self, row: list[int]) -> Leaf:
        va, end, paddr, level, flags, perm = row
        fmt = self.format
        last = fmt.entry_bytes == 4
        return Leaf(
            va & U64,
            (end - 1 & U64) + 1,
            paddr,
            fmt.holder(level),
            1 << fmt.levels[level].shift,
            flags & (0xFFFFFFFF if last else U64),
            rwx(perm),
            rwx(perm >> 4),
        )

    @staticmethod
    def _joins(a: Leaf, b: Leaf, merge: str) -> bool:
        if merge == "none" or a.end != b.va or _rest(a) != _rest(b):
            return False
        return merge == "attributes" or a.paddr + (a.end - a.va) == b.paddr

    # -- entries by their generic names -----------------------------------------------------------

    def pgd_offset(self, va: int) -> Slot:
        """Slot of the top level for an address."""
        root = self.root_high if self.format.two_roots and signed(va) < 0 else self.root
        return self._slot("pgd", root, 0, va)

    def offset(self, parent: Slot, va: int) -> Slot:
        """Slot of the generic level below; below a folded level's parent, that same slot.

        Raises
        ------
        TableInUseError
            The parent is no pointer to a table.

        Linux: p4d_offset(), pud_offset(), pmd_offset(), pte_offset_kernel()
        """
        name = NAMES[NAMES.index(parent.name) + 1]
        position = self.format.real(name)
        if position is None:
            return Slot(name, parent.paddr, parent.position)
        entry = self.entry(parent)
        if not self.format.is_table(entry, parent.position):
            raise errors.TableInUseError(f"{parent.name} entry {entry:#x} points to no table")
        return self._slot(name, self.format.table_address(entry), position, va)

    def _slot(self, name: str, table: int, position: int, va: int) -> Slot:
        index = self.format.index(va, position)
        return Slot(name, table + index * self.format.entry_bytes, position)

    def is_folded(self, slot: Slot) -> bool:
        """Whether the generic level below holds this entry's information.

        Then `none`, `bad` and `leaf` are false here and `present` is true.
        """
        return self.format.holder(slot.position) != slot.name

    def entry(self, slot: Slot) -> int:
        """Value of an entry."""
        return int.from_bytes(self.ram.read(slot.paddr, self.format.entry_bytes), "little")

    def none(self, slot: Slot) -> bool:
        """pgd_none() .. pte_none()."""
        return not self.is_folded(slot) and self.format.is_none(self.entry(slot))

    def present(self, slot: Slot) -> bool:
        """pgd_present() .. pte_present()."""
        return self.is_folded(slot) or self.format.is_present(self.entry(slot))

    def bad(self, slot: Slot) -> bool:
        """pgd_bad() .. pmd_bad(): not empty, not a leaf, and no good pointer to a table."""
        return not self.is_folded(slot) and self.format.is_bad(self.entry(slot), slot.name)

    def leaf(self, slot: Slot) -> bool:
        """pgd_leaf() .. pmd_leaf()."""
        if self.is_folded(slot):
            return False
        return self.format.is_leaf(self.entry(slot), slot.position)


def _rest(leaf: Leaf) -> tuple[str, int, int, str, str]:
    return leaf.level, leaf.size, leaf.flags, leaf.kernel, leaf.user
