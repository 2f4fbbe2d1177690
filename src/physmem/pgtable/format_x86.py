# SPDX-License-Identifier: GPL-2.0-or-later
"""Page-table formats of x86: two levels, PAE, four and five levels.

    63  62..59  58     57..52  51..12   11..9     8  7    6  5  4    3    2   1   0
    NX  key     devmap software address software G  PS/PAT D  A  PCD  PWT  US  RW  P

Linux: arch/x86/include/asm/pgtable_types.h (6.1), include/asm-x86/pgtable_64.h (2.6.24)
"""

from dataclasses import replace
from types import MappingProxyType

from physmem.pgtable.format import ALWAYS, U64, Format, Level, Rule, Software, bits

P, RW, US, PWT, PCD, A, D, PS, G = (1 << n for n in range(9))
SPECIAL = 1 << 9
UFFD_WP = 1 << 10
SOFT_DIRTY = 1 << 11
PAT_LARGE = 1 << 12
DEVMAP = 1 << 58
NX = 1 << 63
KERNPG_TABLE = P | RW | A | D
PAGE_TABLE = KERNPG_TABLE | US


def _prots(none: int, nx: int, nocache: int) -> dict[str, int]:
    """Protections of one kernel; `nx` is 0 where the format has no such bit."""
    kernel = P | RW | A | D | G
    return {
        "PAGE_NONE": none,
        "PAGE_READONLY": P | US | A | nx,
        "PAGE_READONLY_EXEC": P | US | A,
        "PAGE_COPY": P | US | A | nx,
        "PAGE_COPY_EXEC": P | US | A,
        "PAGE_SHARED": P | RW | US | A | nx,
        "PAGE_SHARED_EXEC": P | RW | US | A,
        "PAGE_KERNEL": kernel | nx,
        "PAGE_KERNEL_EXEC": kernel,
        "PAGE_KERNEL_RO": kernel & ~RW | nx,
        "PAGE_KERNEL_ROX": kernel & ~RW,
        "PAGE_KERNEL_NOCACHE": kernel | nx | nocache,
        "PAGE_KERNEL_LARGE": kernel | PS | nx,
        "PAGE_KERNEL_LARGE_EXEC": kernel | PS,
    }


def software_6_1(address: int, nx: int) -> Software:
    """Software bits and protections of Linux 6.1; `address` are the bits of an address."""
    flags = U64 & ~address
    return Software(
        protnone=G,
        special=SPECIAL,
        keep=address | PCD | PWT | SPECIAL | A | D | SOFT_DIRTY | UFFD_WP | (DEVMAP if nx else 0),
        table=PAGE_TABLE,
        kernel_table=KERNPG_TABLE,
        none_ignore=A | D if nx else 0,  # some processors set them in empty entries
        good=MappingProxyType(
            {
                "pgd": Rule(flags & ~US, KERNPG_TABLE),
                "p4d": Rule(flags & ~PAGE_TABLE, 0),
                "pud": Rule(flags & ~PAGE_TABLE, 0),
                "pmd": Rule(flags & ~US & ~A, P | RW | D),
            }
        ),
        prots=MappingProxyType(_prots(A | G, nx, PCD | PWT)),
    )


def software_2_6_24(address: int, nx: int, *, long: bool) -> Software:
    """Software bits and protections of Linux 2.6.24."""
    flags = U64 & ~address
    good = Rule(flags & ~PAGE_TABLE, 0) if long else Rule(flags & ~US, KERNPG_TABLE)
    return Software(
        protnone=PS,
        file=D,
        keep=address | A | D,
        table=PAGE_TABLE,
        kernel_table=KERNPG_TABLE,
        good=MappingProxyType({"pgd": good, "pud": good, "pmd": good}),
        prots=MappingProxyType(_prots(PS | A, nx, PCD)),
    )


_EXEC = Rule(NX, 0)
_LONG = bits(51, 12)


def _level(name: str, shift: int, leaf: bool = True, top: int = 51, index: int = 9) -> Level:
    """One level of 8-byte entries."""
    large = shift > 12
    return Level(
        name=name,
        shift=shift,
        bits=index,
        leaf=leaf,
        addr=bits(top, shift),
        leaf_set=PS if large else 0,
        leaf_reserved=bits(shift - 1, 13) if large else 0,
        table_reserved=0 if leaf else PS,
    )


_PTE, _PMD, _PUD = _level("pte", 12), _level("pmd", 21), _level("pud", 30)

X86_64 = Format(
    name="x86_64",
    page_shift=12,
    va_bits=48,
    pa_bits=52,
    entry_bytes=8,
    levels=(_level("pgd", 39, leaf=False), _PUD, _PMD, _PTE),
    soft=software_6_1(_LONG, NX),
    canonical_shift=47,
    table_addr=_LONG,
    kind=Rule(PS, 0),
    write=Rule(RW, RW),
    kexec=_EXEC,
    uexec=_EXEC,
    user=Rule(US, US),
    table_write=Rule(RW, RW),
    table_user=Rule(US, US),
    table_kexec=_EXEC,
    table_uexec=_EXEC,
    young=A,
    young_tables=True,
    dirty=D,
    writable=RW,
    mkwrite=(RW, 0),
    wrprotect=(0, RW),
)

X86_64_LA57 = replace(
    X86_64,
    name="x86_64_la57",
    va_bits=57,
    levels=(_level("pgd", 48, leaf=False), _level("p4d", 39, leaf=False), _PUD, _PMD, _PTE),
    canonical_shift=56,
)

_HIGH_RESERVED = bits(62, 52)


def _pae(level: Level) -> Level:
    return replace(
        level,
        leaf_reserved=level.leaf_reserved | _HIGH_RESERVED,
        table_reserved=level.table_reserved | _HIGH_RESERVED,
    )


X86_32_PAE = replace(
    X86_64,
    name="x86_32_pae",
    va_bits=32,
    levels=(
        replace(
            _level("pgd", 30, leaf=False, index=2),
            table_reserved=bits(63, 52) | bits(8, 5) | US | RW,
            checks=False,
        ),
        _pae(_PMD),
        _pae(_PTE),
    ),
    canonical_shift=32,
    signed=False,
)

_SHORT = bits(31, 12)

X86_32 = replace(
    X86_64,
    name="x86_32",
    va_bits=32,
    pa_bits=40,
    entry_bytes=4,
    levels=(
        Level(
            name="pgd",
            shift=22,
            bits=10,
            leaf=True,
            addr=bits(31, 22),
            high=bits(39, 32),  # PSE-36: into bits 20:13
            leaf_set=PS,
            leaf_reserved=1 << 21,
        ),
        Level(name="pte", shift=12, bits=10, leaf=True, addr=_SHORT),
    ),
    soft=software_6_1(_SHORT, 0),
    canonical_shift=32,
    signed=False,
    high_shift=19,
    table_addr=_SHORT,
    kexec=ALWAYS,
    uexec=ALWAYS,
    table_kexec=ALWAYS,
    table_uexec=ALWAYS,
)

FORMATS_6_1 = (X86_32, X86_32_PAE, X86_64, X86_64_LA57)
FORMATS_2_6_24 = (
    replace(X86_32, soft=software_2_6_24(_SHORT, 0, long=False)),
    replace(X86_32_PAE, soft=software_2_6_24(_LONG, NX, long=False)),
    replace(X86_64, soft=software_2_6_24(_LONG, NX, long=True), pa_bits=46),
)
