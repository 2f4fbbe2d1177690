# SPDX-License-Identifier: GPL-2.0-or-later
"""Direct maps that architectures decide on at start-up, entered into memory."""

import pytest

from physmem.arch.registry import arch_for
from physmem.arch.setup import Setup
from physmem.bootalloc.memblock import Memblock
from physmem.firmware.hardware import Hardware
from physmem.lib.ram import Ram
from physmem.pgtable.boot import DirectMapWriter
from physmem.pgtable.formats import page_table_format
from physmem.pgtable.kernel_layout import kernel_layout

ROOT = 0x7000


@pytest.mark.pure
@pytest.mark.parametrize("memory", ["256MiB", "1GiB", "5GiB"])
@pytest.mark.parametrize(("arch", "fmt"), [("x86_64", "x86_64"), ("x86_64-la57", "x86_64_la57")])
def test_direct_map_of_x86(arch, fmt, memory):
    hardware = Hardware.of(memory=memory)
    setup = Setup(arch=arch_for(arch), hardware=hardware, memblock=Memblock()).run()
    planned = setup.direct_map
    form = page_table_format(fmt)
    offset = kernel_layout(form).page_offset
    assert offset == setup.arch.layout.page_offset
    ram = Ram(-(-planned.max_mapped // (1 << 30)) << 30)
    writer = DirectMapWriter(form, ram, offset, root=ROOT)
    for tables in planned.tables:
        writer.on_tables(tables)
    for piece in planned.pieces:
        writer.on_piece(piece)
    assert writer.unused == 0
    assert writer.table.nr_tables == planned.nr_tables()
    for piece in planned.pieces:
        for paddr in (piece.start, (piece.start + piece.end) // 2, piece.end - 1):
            walk = writer.table.translate(offset + paddr, "w")
            assert walk.paddr == paddr
            assert walk.size <= piece.size
