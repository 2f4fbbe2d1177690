# SPDX-License-Identifier: GPL-2.0-or-later
"""Page-table formats of riscv64: Sv39, Sv48, Sv57, with Svnapot.

    63  62..61  60..54    53..10        9..8      7  6  5  4  3  2  1  0
    N   type    reserved  frame number  software  D  A  G  U  X  W  R  V

Linux: arch/riscv/include/asm/pgtable-bits.h, pgtable-64.h (6.1)
"""

from types import MappingProxyType

from physmem.pgtable.format import U64, Format, Level, Rule, Software, bits

V, R, W, X, U, G, A, D = (1 << n for n in range(8))
SPECIAL = 1 << 8
MT_MASK = 3 << 61
NAPOT = 1 << 63

_RESERVED = bits(60, 54)
_FRAME = bits(55, 12)  # physical address bits; 2 lower in an entry

_KERNEL = V | R | W | A | D | G
PROTS = {
    "PAGE_NONE": G | R,
    "PAGE_READ": V | R | U | A,
    "PAGE_WRITE": V | R | W | U | A,
    "PAGE_EXEC": V | X | U | A,
    "PAGE_READ_EXEC": V | R | X | U | A,
    "PAGE_WRITE_EXEC": V | R | W | X | U | A,
    "PAGE_READONLY": V | R | U | A,
    "PAGE_READONLY_EXEC": V | R | X | U | A,
    "PAGE_COPY": V | R | U | A,
    "PAGE_COPY_EXEC": V | R | X | U | A,
    "PAGE_SHARED": V | R | W | U | A,
    "PAGE_SHARED_EXEC": V | R | W | X | U | A,
    "PAGE_KERNEL": _KERNEL,
    "PAGE_KERNEL_EXEC": _KERNEL | X,
    "PAGE_KERNEL_RO": _KERNEL & ~W,
    "PAGE_KERNEL_ROX": _KERNEL & ~W | X,
    "PAGE_KERNEL_NOCACHE": _KERNEL | 1 << 61,
    "PAGE_KERNEL_IO": _KERNEL | 2 << 61,
}


def _level(name: str, shift: int) -> Level:
    last = shift == 12
    return Level(
        name=name,
        shift=shift,
        bits=9,
        leaf=True,
        addr=bits(55, shift),
        leaf_reserved=_RESERVED | (0 if last else bits(shift - 3, 10) | NAPOT),
        table_reserved=_RESERVED | MT_MASK | NAPOT | U | A | D,
        cont_shift=16 if last else 0,
    )


def riscv64(va_bits: int) -> Format:
    """Sv39, Sv48 or Sv57."""
    names = {
        39: ("pgd", "pmd", "pte"),
        48: ("pgd", "pud", "pmd", "pte"),
        57: ("pgd", "p4d", "pud", "pmd", "pte"),
    }[va_bits]
    shifts = range(12 + 9 * (len(names) - 1), 11, -9)
    table = Rule(V | R | W | X, V)
    return Format(
        name=f"riscv64_sv{va_bits}",
        page_shift=12,
        va_bits=va_bits,
        pa_bits=56,
        entry_bytes=8,
        levels=tuple(_level(name, shift) for name, shift in zip(names, shifts, strict=True)),
        soft=Software(
            protnone=G,
            special=SPECIAL,
            keep=U64 & ~(V | R | W | X | U | G | MT_MASK),
            table=V,
            kernel_table=V,
            good=MappingProxyType(dict.fromkeys(("pgd", "p4d", "pud", "pmd"), table)),
            prots=MappingProxyType(PROTS),
        ),
        canonical_shift=va_bits - 1,
        addr_shift=2,
        table_addr=_FRAME,
        kind=Rule(R | W | X, 0),
        last_no_table=True,
        bad=Rule(R | W, W),
        read=Rule(R, R),
        write=Rule(W, W),
        kexec=Rule(X, X),
        uexec=Rule(X, X),
        user=Rule(U, U),
        young=A,
        dirty=D,
        writable=W,
        mkwrite=(W, 0),
        wrprotect=(0, W),
        cont_bit=NAPOT,
        cont_low=0x8 << 10,
        kernel_reads_user=False,
        kernel_runs_user=False,
    )


FORMATS = tuple(riscv64(va_bits) for va_bits in (39, 48, 57))
