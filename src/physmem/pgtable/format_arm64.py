# SPDX-License-Identifier: GPL-2.0-or-later
"""Page-table formats of arm64: granules of 4K, 16K and 64K, 39 to 52 bits of address.

    63..59        58         57      56       55     54   53   52    51   50  49..48
    table limits  PROT_NONE  devmap  special  dirty  UXN  PXN  CONT  DBM  GP  address (LPA2)

    47..12   11  10  9..8  7..6  5   4..2  1         0
    address  nG  AF  SH    AP    NS  Attr  no block  valid

Linux: arch/arm64/include/asm/pgtable-hwdef.h, pgtable-prot.h (6.1)
"""

from dataclasses import replace
from types import MappingProxyType

from physmem.pgtable.format import U64, Format, Level, Rule, Software, bits

VALID = 1
TABLE = 1 << 1
USER = 1 << 6
RDONLY = 1 << 7
SHARED = 3 << 8
AF = 1 << 10
NG = 1 << 11
GP = 1 << 50
WRITE = 1 << 51  # DBM: the hardware may make it writable by clearing RDONLY
CONT = 1 << 52
PXN = 1 << 53
UXN = 1 << 54
DIRTY = 1 << 55
SPECIAL = 1 << 56
DEVMAP = 1 << 57
PROT_NONE = 1 << 58
PXN_TABLE = 1 << 59
UXN_TABLE = 1 << 60
AP_TABLE_USER = 1 << 61
AP_TABLE_RDONLY = 1 << 62
MT_NORMAL, MT_NORMAL_NC, MT_DEVICE = 0, 2, 3
"""Indices of memory types in MAIR_EL1."""

_CONT_SHIFT = {12: (16, 25), 14: (21, 30), 16: (21, 34)}
"""Page shift -> log2 of the bytes of a contiguous group of pages, of blocks."""


def _prots(shared: int) -> dict[str, int]:
    base = VALID | TABLE | AF | shared
    kernel = base | PXN | UXN | WRITE | DIRTY
    user = base | USER | NG | PXN
    return {
        "PAGE_NONE": (user & ~VALID & ~USER) | PROT_NONE | RDONLY | UXN,
        "PAGE_READONLY": user | RDONLY | UXN,
        "PAGE_READONLY_EXEC": user | RDONLY,
        "PAGE_COPY": user | RDONLY | UXN,
        "PAGE_COPY_EXEC": user | RDONLY,
        "PAGE_SHARED": user | RDONLY | UXN | WRITE,
        "PAGE_SHARED_EXEC": user | RDONLY | WRITE,
        "PAGE_EXECONLY": (user & ~USER) | RDONLY,
        "PAGE_KERNEL": kernel,
        "PAGE_KERNEL_RO": (kernel & ~WRITE) | RDONLY,
        "PAGE_KERNEL_EXEC": kernel & ~PXN,
        "PAGE_KERNEL_ROX": (kernel & ~PXN & ~WRITE) | RDONLY,
        "PAGE_KERNEL_NOCACHE": kernel | MT_NORMAL_NC << 2,
        "PAGE_KERNEL_DEVICE": kernel | MT_DEVICE << 2,
    }


def _software(shared: int) -> Software:
    changed = USER | PXN | UXN | RDONLY | PROT_NONE | VALID | WRITE | GP | 7 << 2
    table = Rule(VALID | TABLE, VALID | TABLE)
    return Software(
        protnone=PROT_NONE,
        special=SPECIAL,
        keep=U64 & ~changed,
        table=VALID | TABLE | PXN_TABLE,
        kernel_table=VALID | TABLE,
        good=MappingProxyType(dict.fromkeys(("pgd", "p4d", "pud", "pmd"), table)),
        prots=MappingProxyType(_prots(shared)),
    )


def _levels(page_shift: int, va_bits: int, addr_top: int, high: int) -> tuple[Level, ...]:
    """Levels top first: each resolves page_shift - 3 bits, the first what is left."""
    width = page_shift - 3
    count = -(-(va_bits - page_shift) // width)
    names = {
        2: ("pgd", "pte"),
        3: ("pgd", "pmd", "pte"),
        4: ("pgd", "pud", "pmd", "pte"),
        5: ("pgd", "p4d", "pud", "pmd", "pte"),
    }[count]
    made = []
    for position, name in enumerate(names):
        shift = page_shift + width * (count - 1 - position)
        number = 4 - count + position  # of the architecture; the last is 3
        pages, blocks = _CONT_SHIFT[page_shift]
        made.append(
            Level(
                name=name,
                shift=shift,
                bits=min(width, va_bits - shift),
                leaf=number >= 2 or (number == 1 and page_shift == 12),
                addr=bits(addr_top, shift),
                high=high,
                leaf_clear=0 if number == 3 else TABLE,
                cont_shift={3: pages, 2: blocks}.get(number, 0),
            )
        )
    return tuple(made)


def arm64(page_shift: int, va_bits: int, *, pa_bits: int = 48) -> Format:
    """Format of a granule and a size of addresses; 52 address bits bring LPA (64K) or LPA2."""
    large = pa_bits == 52
    lpa2 = large and page_shift < 16
    addr_top = 49 if lpa2 else 47
    high = (bits(51, 50) if lpa2 else bits(51, 48)) if large else 0
    levels = _levels(page_shift, va_bits, addr_top, high)
    granule = {12: "4k", 14: "16k", 16: "64k"}[page_shift]
    suffix = "_lpa" if large and va_bits != 52 else ""
    return Format(
        name=f"arm64_{granule}_{va_bits}{suffix}",
        page_shift=page_shift,
        va_bits=va_bits,
        pa_bits=pa_bits,
        entry_bytes=8,
        levels=levels,
        soft=_software(0 if lpa2 else SHARED),
        canonical_shift=va_bits,
        two_roots=True,
        high_shift=(42 if lpa2 else 36) if large else 0,
        table_addr=bits(addr_top, page_shift),
        table_high=high,
        kind=Rule(TABLE, TABLE),
        last=Rule(TABLE, TABLE),
        write=Rule(RDONLY, 0),
        kexec=Rule(PXN, 0),
        uexec=Rule(UXN, 0),
        user=Rule(USER, USER),
        table_write=Rule(AP_TABLE_RDONLY, 0),
        table_user=Rule(AP_TABLE_USER, 0),
        table_kexec=Rule(PXN_TABLE, 0),
        table_uexec=Rule(UXN_TABLE, 0),
        young=AF,
        dirty=DIRTY,
        accessed_faults=True,
        hw_dirty=Rule(WRITE | RDONLY, WRITE),
        mkwrite=(WRITE, RDONLY),
        wrprotect=(RDONLY, WRITE),
        writable=WRITE,
        cont_bit=CONT,
        exec_alone=True,
        user_write_no_kexec=True,
    )


_LPA2_LEVELS = arm64(12, 52, pa_bits=52)

FORMATS = (
    arm64(12, 39),
    arm64(12, 48),
    arm64(14, 36),
    arm64(14, 47),
    arm64(14, 48),
    arm64(16, 42),
    arm64(16, 48),
    arm64(16, 48, pa_bits=52),
    arm64(16, 52, pa_bits=52),
    replace(_LPA2_LEVELS, name="arm64_4k_52"),
    arm64(14, 52, pa_bits=52),
)
