# SPDX-License-Identifier: GPL-2.0-or-later
"""Request flags as text and as numbers: the names that a kernel prints and a caller writes.

Linux: include/linux/gfp_types.h, include/trace/events/mmflags.h (6.1, 6.12);
include/linux/gfp.h (2.6.24)

Bits below 0x1000000 have one value in all configurations. What lies above depends on the
configuration (KASAN, lockdep) and says nothing about which frame is taken: its names are read as 0.
"""

from dataclasses import dataclass

from physmem.lib.errors import BadRequestError, BadTraceError
from physmem.mm.gfp_bits import GFP_COLD_BIT

__GFP_DMA = 0x1
__GFP_HIGHMEM = 0x2
__GFP_DMA32 = 0x4
__GFP_MOVABLE = 0x8
__GFP_RECLAIMABLE = 0x10
__GFP_HIGH = 0x20
__GFP_IO = 0x40
__GFP_FS = 0x80
__GFP_ZERO = 0x100
__GFP_ATOMIC = 0x200  # 6.1; the bit is unused in 6.12
__GFP_DIRECT_RECLAIM = 0x400
__GFP_KSWAPD_RECLAIM = 0x800
__GFP_WRITE = 0x1000
__GFP_NOWARN = 0x2000
__GFP_RETRY_MAYFAIL = 0x4000
__GFP_NOFAIL = 0x8000
__GFP_NORETRY = 0x10000
__GFP_MEMALLOC = 0x20000
__GFP_COMP = 0x40000
__GFP_NOMEMALLOC = 0x80000
__GFP_HARDWALL = 0x100000
__GFP_THISNODE = 0x200000
__GFP_ACCOUNT = 0x400000
__GFP_ZEROTAGS = 0x800000
__GFP_RECLAIM = __GFP_DIRECT_RECLAIM | __GFP_KSWAPD_RECLAIM

GFP_NOIO = __GFP_RECLAIM
GFP_NOFS = __GFP_RECLAIM | __GFP_IO
GFP_KERNEL = __GFP_RECLAIM | __GFP_IO | __GFP_FS
GFP_KERNEL_ACCOUNT = GFP_KERNEL | __GFP_ACCOUNT
GFP_USER = GFP_KERNEL | __GFP_HARDWALL
GFP_HIGHUSER = GFP_USER | __GFP_HIGHMEM
GFP_HIGHUSER_MOVABLE = GFP_HIGHUSER | __GFP_MOVABLE
GFP_TRANSHUGE_LIGHT = (
    GFP_HIGHUSER_MOVABLE | __GFP_COMP | __GFP_NOMEMALLOC | __GFP_NOWARN
) & ~__GFP_RECLAIM
GFP_TRANSHUGE = GFP_TRANSHUGE_LIGHT | __GFP_DIRECT_RECLAIM
GFP_DMA = __GFP_DMA
GFP_DMA32 = __GFP_DMA32

WITHOUT_EFFECT = frozenset(
    {
        "__GFP_SKIP_ZERO",
        "__GFP_SKIP_KASAN",
        "__GFP_SKIP_KASAN_POISON",
        "__GFP_SKIP_KASAN_UNPOISON",
        "__GFP_NOLOCKDEP",
        "__GFP_NO_OBJ_EXT",
    }
)
"""Names whose bit depends on the configuration and does not steer the allocator: read as 0."""


@dataclass(frozen=True)
class GfpTable:
    """Names of one kernel in the order in which it tries them when it prints flags."""

    name: str
    bits: dict[str, int]
    moved: tuple[tuple[int, int], ...] = ()
    """(bit here, bits of `physmem.mm.gfp_bits`), where they are not the same; empty: all are."""

    def internal(self, bits: int) -> int:
        """Bits as kernels know them. Those that this Linux does not have mean nothing.

        Examples
        --------
        >>> hex(GFP_2_6_24.internal(GFP_2_6_24["GFP_HIGHUSER_MOVABLE"])), hex(GFP_6_1.internal(8))
        ('0x100cca', '0x8')
        """
        if not self.moved:
            return bits
        return sum(inner for outer, inner in self.moved if bits & outer)

    def external(self, bits: int) -> int:
        """Bits of this Linux, of those that kernels know."""
        if not self.moved:
            return bits
        return sum(outer for outer, inner in self.moved if bits & inner == inner)

    def __getitem__(self, flag: str) -> int:
        return self.bits[flag]


def _table(name: str, atomic: int, nowait: int, *, has_atomic_bit: bool) -> GfpTable:
    bits = {
        "GFP_TRANSHUGE": GFP_TRANSHUGE,
        "GFP_TRANSHUGE_LIGHT": GFP_TRANSHUGE_LIGHT,
        "GFP_HIGHUSER_MOVABLE": GFP_HIGHUSER_MOVABLE,
        "GFP_HIGHUSER": GFP_HIGHUSER,
        "GFP_USER": GFP_USER,
        "GFP_KERNEL_ACCOUNT": GFP_KERNEL_ACCOUNT,
        "GFP_KERNEL": GFP_KERNEL,
        "GFP_NOFS": GFP_NOFS,
        "GFP_ATOMIC": atomic,
        "GFP_NOIO": GFP_NOIO,
        "GFP_NOWAIT": nowait,
        "GFP_DMA": __GFP_DMA,
        "__GFP_HIGHMEM": __GFP_HIGHMEM,
        "GFP_DMA32": __GFP_DMA32,
        "__GFP_HIGH": __GFP_HIGH,
        "__GFP_ATOMIC": __GFP_ATOMIC,
        "__GFP_IO": __GFP_IO,
        "__GFP_FS": __GFP_FS,
        "__GFP_NOWARN": __GFP_NOWARN,
        "__GFP_RETRY_MAYFAIL": __GFP_RETRY_MAYFAIL,
        "__GFP_NOFAIL": __GFP_NOFAIL,
        "__GFP_NORETRY": __GFP_NORETRY,
        "__GFP_COMP": __GFP_COMP,
        "__GFP_ZERO": __GFP_ZERO,
        "__GFP_NOMEMALLOC": __GFP_NOMEMALLOC,
        "__GFP_MEMALLOC": __GFP_MEMALLOC,
        "__GFP_HARDWALL": __GFP_HARDWALL,
        "__GFP_THISNODE": __GFP_THISNODE,
        "__GFP_RECLAIMABLE": __GFP_RECLAIMABLE,
        "__GFP_MOVABLE": __GFP_MOVABLE,
        "__GFP_ACCOUNT": __GFP_ACCOUNT,
        "__GFP_WRITE": __GFP_WRITE,
        "__GFP_RECLAIM": __GFP_RECLAIM,
        "__GFP_DIRECT_RECLAIM": __GFP_DIRECT_RECLAIM,
        "__GFP_KSWAPD_RECLAIM": __GFP_KSWAPD_RECLAIM,
        "__GFP_ZEROTAGS": __GFP_ZEROTAGS,
    }
    if not has_atomic_bit:
        del bits["__GFP_ATOMIC"]
    return GfpTable(name, bits)


GFP_6_1 = _table(
    "6.1",
    atomic=__GFP_HIGH | __GFP_ATOMIC | __GFP_KSWAPD_RECLAIM,
    nowait=__GFP_KSWAPD_RECLAIM,
    has_atomic_bit=True,
)
GFP_6_12 = _table(
    "6.12",
    atomic=__GFP_HIGH | __GFP_KSWAPD_RECLAIM,
    nowait=__GFP_KSWAPD_RECLAIM | __GFP_NOWARN,
    has_atomic_bit=False,
)
_BITS_2_6_24 = {
    "__GFP_DMA": (0x1, __GFP_DMA),
    "__GFP_HIGHMEM": (0x2, __GFP_HIGHMEM),
    "__GFP_DMA32": (0x4, __GFP_DMA32),
    "__GFP_WAIT": (0x10, __GFP_RECLAIM),  # kswapd is always woken
    "__GFP_HIGH": (0x20, __GFP_HIGH),
    "__GFP_IO": (0x40, __GFP_IO),
    "__GFP_FS": (0x80, __GFP_FS),
    "__GFP_COLD": (0x100, GFP_COLD_BIT),
    "__GFP_NOWARN": (0x200, __GFP_NOWARN),
    "__GFP_REPEAT": (0x400, __GFP_RETRY_MAYFAIL),
    "__GFP_NOFAIL": (0x800, __GFP_NOFAIL),
    "__GFP_NORETRY": (0x1000, __GFP_NORETRY),
    "__GFP_COMP": (0x4000, __GFP_COMP),
    "__GFP_ZERO": (0x8000, __GFP_ZERO),
    "__GFP_NOMEMALLOC": (0x10000, __GFP_NOMEMALLOC),
    "__GFP_HARDWALL": (0x20000, __GFP_HARDWALL),
    "__GFP_THISNODE": (0x40000, __GFP_THISNODE),
    "__GFP_RECLAIMABLE": (0x80000, __GFP_RECLAIMABLE),
    "__GFP_MOVABLE": (0x100000, __GFP_MOVABLE),
}
"""Name -> (bit there, bits of 6.1 that mean the same)."""


def _table_2_6_24() -> GfpTable:
    one = {name: outer for name, (outer, _) in _BITS_2_6_24.items()}
    noio = one["__GFP_WAIT"]
    nofs = noio | one["__GFP_IO"]
    kernel = nofs | one["__GFP_FS"]
    user = kernel | one["__GFP_HARDWALL"]
    highuser = user | one["__GFP_HIGHMEM"]
    movable = one["__GFP_MOVABLE"]
    composites = {
        "GFP_HIGHUSER_MOVABLE": highuser | movable,
        "GFP_HIGHUSER_PAGECACHE": highuser | movable,
        "GFP_HIGHUSER": highuser,
        "GFP_USER_PAGECACHE": user | movable,
        "GFP_USER": user,
        "GFP_TEMPORARY": kernel | one["__GFP_RECLAIMABLE"],
        "GFP_KERNEL": kernel,
        "GFP_NOFS_PAGECACHE": nofs | movable,
        "GFP_NOFS": nofs,
        "GFP_NOIO": noio,
        "GFP_ATOMIC": one["__GFP_HIGH"],
        "GFP_NOWAIT": 0,
        "GFP_THISNODE": one["__GFP_THISNODE"] | one["__GFP_NOWARN"] | one["__GFP_NORETRY"],
        "GFP_DMA": one["__GFP_DMA"],
        "GFP_DMA32": one["__GFP_DMA32"],
    }
    return GfpTable("2.6.24", composites | one, tuple(_BITS_2_6_24.values()))


GFP_2_6_24 = _table_2_6_24()
TABLES: dict[str, GfpTable] = {table.name: table for table in (GFP_2_6_24, GFP_6_1, GFP_6_12)}
"""Name of a table (as a profile states it) -> table."""

GFP_ATOMIC = GFP_6_1["GFP_ATOMIC"]
"""The composite of 6.1; that of another kernel is in its table."""
GFP_NOWAIT = GFP_6_1["GFP_NOWAIT"]
"""The composite of 6.1; that of another kernel is in its table."""


def _bits(text: str, table: GfpTable) -> int | str:
    """Return the bits of the text, or the word that is no flag."""
    bits = 0
    for raw in text.split("|"):
        word = raw.strip()
        value = table.bits.get(word)
        if value is not None:
            bits |= value
        elif word.startswith("0x"):
            try:
                value = int(word, 16)
            except ValueError:
                return word
            if not 0 <= value < 1 << 32:
                return word
            bits |= value
        elif word == "__GFP_DMA":  # a caller may write it; the kernel prints GFP_DMA
            bits |= __GFP_DMA
        elif word == "__GFP_DMA32":
            bits |= __GFP_DMA32
        elif word not in WITHOUT_EFFECT and not (word == "none" and text.strip() == "none"):
            return word
    return bits


def decode_gfp(text: str, table: GfpTable) -> int:
    """Bits of the flags that a kernel printed, such as "GFP_KERNEL|__GFP_ZERO|0x1000000".

    Raises
    ------
    BadTraceError
        A word that is no flag of the table.

    Examples
    --------
    >>> hex(decode_gfp("GFP_NOWAIT|__GFP_COMP", GFP_6_12))
    '0x42800'
    """
    bits = _bits(text, table)
    if isinstance(bits, str):
        raise BadTraceError(f"{bits!r} is no gfp flag of Linux {table.name}")
    return bits


def format_gfp(bits: int, table: GfpTable) -> str:
    """Text of flags as the kernel prints it: greedy in the order of the table, rest in hex.

    Examples
    --------
    >>> format_gfp(0xCC0 | 0x100 | 0x1000000, GFP_6_1), format_gfp(0, GFP_6_1)
    ('GFP_KERNEL|__GFP_ZERO|0x1000000', 'none')
    """
    words = []
    for name, value in table.bits.items():
        if value and value & bits == value:
            words.append(name)
            bits &= ~value
    if bits:
        words.append(hex(bits))
    return "|".join(words) or "none"


def parse_gfp(flags: str | int, table: GfpTable = GFP_6_1) -> int:
    """Bits of flags that a caller wrote: a number, or names joined by '|'.

    Raises
    ------
    BadRequestError
        An unknown name, or a number outside of 32 bits.

    Examples
    --------
    >>> parse_gfp("GFP_KERNEL | __GFP_ZERO") == parse_gfp(0xDC0) == GFP_KERNEL | 0x100
    True
    """
    bits = _bits(flags, table) if isinstance(flags, str) else int(flags)
    if isinstance(bits, str):
        raise BadRequestError(
            f"{bits!r} is no gfp flag of Linux {table.name}; "
            "write names as in GFP_KERNEL|__GFP_ZERO, or a number"
        )
    if not 0 <= bits < 1 << 32:
        raise BadRequestError(f"gfp {bits:#x} does not fit in 32 bits")
    return bits
