# SPDX-License-Identifier: GPL-2.0-or-later
"""Random mappings in every corner of a format's address space, and addresses to ask about."""

from physmem.lib.errors import AlreadyMappedError
from physmem.lib.ram import Ram
from physmem.pgtable.format import U64
from physmem.pgtable.formats import page_table_format
from physmem.pgtable.source import bump
from physmem.pgtable.table import PageTable

RAM = 1 << 33  # tables lie in its first part
PROTS = ("PAGE_KERNEL", "PAGE_KERNEL_RO", "PAGE_KERNEL_EXEC", "PAGE_KERNEL_ROX")
USER_PROTS = ("PAGE_SHARED", "PAGE_SHARED_EXEC", "PAGE_READONLY", "PAGE_READONLY_EXEC")


class Maps:
    """A page table filled at random; `ranges` are what was mapped.

    Physical addresses are in [bottom, top), without the bits of `avoid`;
    `clean` leaves accessed and dirty bits to the hardware; `napot` makes groups of riscv64 too;
    tables lie in `tables`; `first` is called with the empty table.
    """

    def __init__(
        self,
        name,
        rnd,
        count=200,
        *,
        kernel=True,
        top=None,
        bottom=0,
        avoid=0,
        clean=False,
        napot=False,
        tables=(1 << 20, 1 << 30),
        first=None,
    ):
        self.fmt = fmt = page_table_format(name)
        self.rnd = rnd
        self.ram = Ram(RAM if fmt.va_bits > 32 else 1 << 32)
        self.table = PageTable(fmt, self.ram, bump(*tables), kernel=kernel)
        if first is not None:
            first(self.table)
        reach = top or 1 << min(fmt.pa_bits, 40)
        if fmt.name == "x86_32":
            reach = 1 << 32
        shifts = [shift for shift in fmt.leaf_shifts if 4 << shift <= reach]
        self.ranges = []
        self.refused = 0
        can_group = fmt.cont_bit and (napot or not fmt.cont_low)
        while len(self.ranges) < count:
            page = 1 << rnd.choice(shifts)
            size = page * rnd.choice((1, 1, 2, 3, 16, 33))
            prots = PROTS if kernel else PROTS + USER_PROTS
            group = bool(can_group and rnd.random() < 0.3)
            align = max(page, 1 << (fmt.levels[-1].cont_shift if group else 0))
            if size >= min(1 << (fmt.va_bits - 2), reach // 2):
                size = page
            va = self.random_va(size, align)
            paddr = rnd.randrange(reach - size + 1) // align * align & ~avoid
            if paddr < bottom or (paddr + size - 1) & avoid:
                continue
            flags = fmt.prot(rnd.choice(prots))
            if not flags & fmt.young and not fmt.accessed_faults:
                flags |= fmt.young
            flags |= fmt.dirty if name.startswith("riscv") else 0
            if fmt.pte_write(flags) and rnd.random() < 0.7:
                flags = fmt.pte_mkdirty(flags)  # else arm64 does not let anyone write
            if clean:
                flags &= ~(fmt.young | fmt.dirty)
            try:
                self.table.map(va, paddr, size, flags, page=page, contiguous=group)
            except AlreadyMappedError:
                self.refused += 1
                continue
            self.ranges.append((va, size, paddr))

    def random_va(self, size, align):
        """Address in either half, at scattered distances from its ends."""
        fmt, rnd = self.fmt, self.rnd
        half = 1 << fmt.canonical_shift
        room = min(half - size, 1 << rnd.randrange(fmt.page_shift + 3, fmt.canonical_shift + 1))
        va = max(rnd.randrange(max(room, 1)), 0) // align * align
        if rnd.random() < 0.3:
            va = (half - size - va) // align * align
        if fmt.signed and rnd.random() < 0.5:
            va = va - half & U64
        return va

    def queries(self, count):
        """Addresses: most inside of a mapping, some right beside, some anywhere."""
        fmt, rnd = self.fmt, self.rnd
        for _ in range(count):
            va, size, _ = rnd.choice(self.ranges)
            kind = rnd.random()
            if kind < 0.7:
                yield va + rnd.randrange(size)
            elif kind < 0.85:
                yield va + size + rnd.randrange(1 << rnd.randrange(12, 32)) & U64
            elif kind < 0.97:
                yield va - 1 - rnd.randrange(1 << rnd.randrange(12, 32)) & U64
            else:
                yield rnd.randrange(1 << 64 if fmt.va_bits > 32 else 1 << 32)
