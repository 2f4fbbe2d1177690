# SPDX-License-Identifier: GPL-2.0-or-later
"""What a page-table format is: levels, places of bits, and the values of page protections.

A format is data; the walks over it are written once (`walk`, `mapping`, `generic`). Entries are
unsigned Python ints here and signed 64-bit numbers with the same bits inside kernels.

Linux: arch/*/include/asm/pgtable*.h, include/asm-generic/pgtable-nop4d.h (2.6.24, 6.1)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from physmem.lib.errors import BadRequestError

NAMES = ("pgd", "p4d", "pud", "pmd", "pte")
"""The generic levels, top first."""
U64 = (1 << 64) - 1


def bits(high: int, low: int) -> int:
    """Mask of bits high..low, both included."""
    return ((1 << (high - low + 1)) - 1) << low


class Rule(NamedTuple):
    """A test of an entry: `entry & mask == value`. The default is always true."""

    mask: int = 0
    value: int = 0

    def holds(self, entry: int) -> bool:
        """Whether the entry passes."""
        return entry & self.mask == self.value


ALWAYS = Rule()
NEVER = Rule(0, 1)


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level that the hardware has."""

    name: str  # generic name: "pgd" .. "pte"
    shift: int  # log2 of the bytes that one entry covers
    bits: int  # log2 of the entries of a table
    leaf: bool  # an entry may map memory
    addr: int  # physical address bits of a leaf that stand at their own place (before addr_shift)
    high: int = 0  # physical address bits of a leaf that stand elsewhere
    leaf_set: int = 0  # bits that make a page protection one for a leaf at this level
    leaf_clear: int = 0
    leaf_reserved: int = 0  # bits that must be zero in a leaf
    table_reserved: int = 0  # bits that must be zero in a pointer to a table
    cont_shift: int = 0  # log2 of the bytes of a contiguous group; 0: none
    checks: bool = True  # a table entry here takes part in the permissions (not a PDPTE)


@dataclass(frozen=True, kw_only=True)
class Software:
    """Bits that the hardware ignores, and the protections built with them, of one kernel."""

    protnone: int  # set in an entry that is present for the kernel but not for the hardware
    special: int = 0
    file: int = 0  # non-linear file mapping (2.6.24)
    keep: int = 0  # bits that pte_modify keeps
    table: int = 0  # flags of a pointer to a table of user mappings
    kernel_table: int = 0
    none_ignore: int = 0  # bits that an empty entry may have all the same
    good: Mapping[str, Rule] = field(default_factory=lambda: MappingProxyType({}))
    # by generic name: what a well-formed pointer to a table looks like
    prots: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True)
class Format:
    """One page-table format, with the software bits of one kernel.

    Linux: asm/pgtable_types.h (x86), asm/pgtable-hwdef.h and pgtable-prot.h (arm64),
    asm/pgtable-bits.h (riscv)
    """

    name: str
    page_shift: int
    va_bits: int
    pa_bits: int
    entry_bytes: int
    levels: tuple[Level, ...]
    soft: Software
    canonical_shift: int  # bits from here on are all equal ...
    signed: bool = True  # ... zeros or ones; False: zeros only
    two_roots: bool = False  # the upper half has a root of its own
    addr_shift: int = 0  # an address stands this much lower in an entry
    high_shift: int = 0  # the displaced address bits stand this much lower
    table_addr: int
    table_high: int = 0
    present: int = 1
    kind: Rule  # above the last level: true for a pointer to a table
    last: Rule = ALWAYS  # at the last level: true for a valid leaf
    last_no_table: bool = False  # `kind` tells a pointer at the last level too, where it is wrong
    bad: Rule = NEVER  # true for a leaf that no hardware accepts
    read: Rule = ALWAYS
    write: Rule
    kexec: Rule
    uexec: Rule
    user: Rule
    table_write: Rule = ALWAYS
    table_user: Rule = ALWAYS
    table_kexec: Rule = ALWAYS
    table_uexec: Rule = ALWAYS
    young: int
    young_tables: bool = False  # the hardware sets it in pointers to tables too
    dirty: int  # the bit that says "dirty" to software
    accessed_faults: bool = False  # a leaf that is not young faults
    hw_dirty: Rule = NEVER  # another form of "dirty": writable and not yet clean (arm64)
    mkwrite: tuple[int, int] = (0, 0)  # bits to set, bits to clear
    wrprotect: tuple[int, int] = (0, 0)
    writable: int = 0  # bit that says "writable" to software
    cont_bit: int = 0
    cont_low: int = 0  # address bits, as encoded, that say the size of a group (Svnapot)
    exec_alone: bool = False  # user code may run where user data may not be read
    kernel_reads_user: bool = True
    kernel_runs_user: bool = True
    user_write_no_kexec: bool = False

    # -- geometry ---------------------------------------------------------------------------------

    @property
    def page_size(self) -> int:
        """Bytes of the smallest page."""
        return 1 << self.page_shift

    @property
    def leaf_shifts(self) -> tuple[int, ...]:
        """log2 of every leaf size, largest first (contiguous groups left out)."""
        return tuple(level.shift for level in self.levels if level.leaf)

    def real(self, name: str) -> int | None:
        """Position of a generic level among the hardware's, or None when it is folded."""
        for position, level in enumerate(self.levels):
            if level.name == name:
                return position
        return None

    def holder(self, position: int) -> str:
        """Generic name under which the entries of a level are tested (the last that is folded)."""
        if position + 1 == len(self.levels):
            return "pte"
        return NAMES[NAMES.index(self.levels[position + 1].name) - 1]

    def canonical(self, va: int) -> bool:
        """Whether the hardware accepts the address at all."""
        above = signed(va) >> self.canonical_shift
        return above == 0 or (self.signed and above == -1)

    def index(self, va: int, position: int) -> int:
        """Index into a table of the level at a position."""
        level = self.levels[position]
        return va >> level.shift & ((1 << level.bits) - 1)

    # -- addresses in entries ---------------------------------------------------------------------

    def encode_address(self, paddr: int, addr: int, high: int) -> int:
        """Address bits as they stand in an entry."""
        return (paddr & addr) >> self.addr_shift | (paddr & high) >> self.high_shift

    def decode_address(self, entry: int, addr: int, high: int) -> int:
        """Physical address from the bits of an entry."""
        low = (entry & addr >> self.addr_shift) << self.addr_shift
        return low | (entry & high >> self.high_shift) << self.high_shift

    def encode_table(self, paddr: int, *, kernel: bool = False) -> int:
        """Entry that points to a table.

        Examples
        --------
        >>> from physmem.pgtable.formats import page_table_format
        >>> hex(page_table_format("riscv64_sv39").encode_table(0x81000000))
        '0x20400001'
        """
        flags = self.soft.kernel_table if kernel else self.soft.table
        return self.encode_address(paddr, self.table_addr, self.table_high) | flags

    def encode_leaf(self, paddr: int, prot: int, position: int = -1) -> int:
        """Entry that maps memory, at the level at a position (the last by default).

        Raises
        ------
        BadRequestError
            The level has no leaves, or the address does not fit.

        Examples
        --------
        >>> from physmem.pgtable.formats import page_table_format
        >>> hex(page_table_format("arm64_4k_48").encode_leaf(0x40000000, 0xE8000000000703, -2))
        '0xe8000040000701'
        """
        level = self.levels[position]
        if not level.leaf or paddr & ~(level.addr | level.high) or paddr >> self.pa_bits:
            raise BadRequestError(f"{self.name}: no {level.name} entry can map {paddr:#x}")
        flags = prot & ~level.leaf_clear | level.leaf_set
        return self.encode_address(paddr, level.addr, level.high) | flags

    def leaf_address(self, entry: int, position: int = -1) -> int:
        """Physical address that a leaf maps."""
        level = self.levels[position]
        paddr = self.decode_address(entry, level.addr, level.high)
        if self.cont_low and entry & self.cont_bit:
            paddr &= -1 << level.cont_shift
        return paddr

    def table_address(self, entry: int) -> int:
        """Physical address of the table that an entry points to."""
        return self.decode_address(entry, self.table_addr, self.table_high)

    # -- predicates: what the kernel asks an entry ------------------------------------------------

    def is_none(self, entry: int) -> bool:
        """Empty: nothing was ever stored here."""
        return not entry & ~self.soft.none_ignore

    def is_present(self, entry: int) -> bool:
        """Present for the hardware, or PROT_NONE."""
        return bool(entry & (self.present | self.soft.protnone))

    def is_valid(self, entry: int) -> bool:
        """Present for the hardware."""
        return bool(entry & self.present)

    def is_table(self, entry: int, position: int) -> bool:
        """A pointer to a table."""
        last = position in (-1, len(self.levels) - 1)
        return not last and self.is_valid(entry) and self.kind.holds(entry)

    def is_leaf(self, entry: int, position: int = -1) -> bool:
        """Maps memory."""
        return self.is_present(entry) and not self.is_table(entry, position)

    def is_bad(self, entry: int, name: str) -> bool:
        """No well-formed pointer to a table, for the level that tests it under this name."""
        return not self.soft.good[name].holds(entry)

    def pte_young(self, entry: int) -> bool:
        """Accessed since the bit was cleared."""
        return bool(entry & self.young)

    def pte_dirty(self, entry: int) -> bool:
        """Written to since the bit was cleared."""
        return bool(entry & self.dirty) or self.hw_dirty.holds(entry)

    def pte_write(self, entry: int) -> bool:
        """Writable, as the kernel sees it."""
        return bool(entry & self.writable)

    def pte_exec(self, entry: int) -> bool:
        """Executable by whom it belongs to."""
        return (self.uexec if self.pte_user(entry) else self.kexec).holds(entry)

    def pte_read(self, entry: int) -> bool:
        """Readable by the kernel."""
        return self.read.holds(entry)

    def pte_user(self, entry: int) -> bool:
        """User space may access it."""
        return self.user.holds(entry)

    def pte_special(self, entry: int) -> bool:
        """No page structure stands behind it."""
        return bool(self.soft.special) and bool(entry & self.soft.special)

    def pte_file(self, entry: int) -> bool:
        """An offset in a non-linear file mapping (2.6.24)."""
        return bool(self.soft.file & entry) and not self.is_present(entry)

    # -- changes: value to value ------------------------------------------------------------------

    def pte_pfn(self, entry: int, position: int = -1) -> int:
        """Frame number that a leaf maps."""
        return self.leaf_address(entry, position) >> self.page_shift

    def mk_pte(self, pfn: int, prot: int) -> int:
        """Leaf of the last level for a frame."""
        return self.encode_leaf(pfn << self.page_shift, prot)

    def pte_modify(self, entry: int, prot: int) -> int:
        """Give a leaf another protection; address, young, dirty and special stay."""
        if self.hw_dirty.holds(entry):
            entry = self.pte_mkdirty(entry)
        return entry & self.soft.keep | prot & ~self.soft.keep

    def pte_mkdirty(self, entry: int) -> int:
        """Mark as written to."""
        entry |= self.dirty
        return (
            self.pte_mkwrite(entry) if self.hw_dirty != NEVER and self.pte_write(entry) else entry
        )

    def pte_mkclean(self, entry: int) -> int:
        """Mark as not written to."""
        entry &= ~self.dirty
        return entry | self.hw_dirty.mask & ~self.writable if self.hw_dirty != NEVER else entry

    def pte_mkyoung(self, entry: int) -> int:
        """Mark as accessed."""
        return entry | self.young

    def pte_mkold(self, entry: int) -> int:
        """Mark as not accessed."""
        return entry & ~self.young

    def pte_mkwrite(self, entry: int) -> int:
        """Make writable (arm64: a clean page stays read-only for the hardware)."""
        if self.hw_dirty != NEVER and not entry & self.dirty:
            return entry | self.writable
        return (entry | self.mkwrite[0]) & ~self.mkwrite[1]

    def pte_wrprotect(self, entry: int) -> int:
        """Make read-only; arm64 keeps in a software bit that it is dirty."""
        if self.hw_dirty.holds(entry):
            entry |= self.dirty
        return (entry | self.wrprotect[0]) & ~self.wrprotect[1]

    def pte_mkexec(self, entry: int) -> int:
        """Let code run there."""
        rule = self.uexec if self.pte_user(entry) else self.kexec
        return entry & ~rule.mask | rule.value

    def pte_exprotect(self, entry: int) -> int:
        """Let no code run there (without effect where the format has no such bit)."""
        rule = self.uexec if self.pte_user(entry) else self.kexec
        return entry & ~rule.mask | rule.mask & ~rule.value

    def pte_mkspecial(self, entry: int) -> int:
        """Say that no page structure stands behind it."""
        return entry | self.soft.special

    def prot(self, name: str) -> int:
        """Value of a protection such as PAGE_KERNEL.

        Raises
        ------
        BadRequestError
            This format has no protection of that name.

        Examples
        --------
        >>> from physmem.pgtable.formats import page_table_format
        >>> hex(page_table_format("x86_64").prot("PAGE_KERNEL"))
        '0x8000000000000163'
        """
        value = self.soft.prots.get(name)
        if value is None:
            raise BadRequestError(
                f"protection {name!r}: {self.name} has {', '.join(sorted(self.soft.prots))}"
            )
        return value


def signed(value: int) -> int:
    """The same 64 bits as a signed number, as kernels take them."""
    value &= U64
    return value - (1 << 64) if value >> 63 else value
