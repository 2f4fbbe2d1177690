# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes of a machine by both kinds of address, and images that other programs open."""

import pytest

from physmem.lib.errors import BadInputError, BadRequestError, PageFaultError
from physmem.machine.machine import Machine
from physmem.pgtable.formats import page_table_formats
from physmem.pgtable.image import FORMS
from physmem.pgtable.image_read import read_image

MARK = b"physmem was here"
SMALL = 256 << 20


def marked(fmt, memory="256MiB"):
    """A machine with a page table, something in its memory, and a vmalloc-like mapping."""
    machine = Machine.build(memory)
    table = machine.map_memory(fmt)
    machine.write(0x123_4567, MARK)
    page = table.format.page_size
    far = vmalloc_start(table)
    table.map(far, 0x200_0000, page)
    table.map(far + page, 0x180_0000, page)
    machine.write(0x200_0000 + page - 3, b"abc")
    machine.write(0x180_0000, b"def")
    return machine, table, far + page - 3


def vmalloc_start(table):
    from physmem.pgtable.kernel_layout import kernel_layout

    return kernel_layout(table.format).vmalloc_start


def direct(table):
    from physmem.pgtable.kernel_layout import kernel_layout

    return kernel_layout(table.format).page_offset


@pytest.mark.pure
def test_reading_and_writing_by_virtual_address():
    machine, table, va = marked("x86_64", "64MiB")
    assert machine.read(vaddr=va, size=6) == b"abcdef"
    machine.write(None, b"123456", vaddr=va)
    assert machine.read(0x180_0000, 3) == b"456"
    assert bytes(machine.view(vaddr=va, size=3)) == b"123"
    with pytest.raises(BadRequestError, match="2 places"):
        machine.view(vaddr=va, size=4)
    with pytest.raises(PageFaultError, match="not present"):
        machine.read(vaddr=va, size=9000)
    table.protect(va & -4096, 4096, "PAGE_KERNEL_RO")
    with pytest.raises(PageFaultError, match="not writable"):
        machine.write(None, b"x", vaddr=va)
    with pytest.raises(BadRequestError):
        machine.read(0x1000, 1, vaddr=0x1000)
    with pytest.raises(BadRequestError, match="no page table"):
        Machine.build("64MiB").read(vaddr=0, size=1)


@pytest.mark.parametrize("fmt", page_table_formats())
@pytest.mark.parametrize("form", FORMS)
def test_our_reader_agrees(tmp_path, fmt, form):
    machine, table, va = marked(fmt)
    path = tmp_path / "image"
    machine.export_image(path, form)
    assert path.stat().st_size >= SMALL
    assert path.stat().st_blocks * 512 < SMALL // 8
    image = read_image(path)
    assert image.form == form
    assert image.ram.read(0x123_4567, len(MARK)) == MARK
    if form == "vmcore" and not fmt.endswith("_lpa"):
        assert (image.format, image.root) == (fmt, table.root_high)
        reader = image.table()
    else:
        reader = image.table(fmt, table.root_high)
    assert reader.translate(va).paddr == table.translate(va).paddr
    assert reader.translate(direct(table) + 0x1234567).paddr == 0x1234567


@pytest.mark.pure
def test_bad_images(tmp_path):
    machine, _, _ = marked("x86_64", "64MiB")
    path = tmp_path / "image"
    machine.export_image(path, "vmcore")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInputError, match="cut off"):
        read_image(path)
    path.write_bytes(whole[:100])
    with pytest.raises(BadInputError, match="cut off"):
        read_image(path)
    path.write_bytes(b"")
    with pytest.raises(BadInputError, match="empty"):
        read_image(path)
    with pytest.raises(BadInputError, match="No such file"):
        read_image(tmp_path / "none")
    path.write_bytes(bytes(1 << 20))
    with pytest.raises(BadInputError, match="does not tell"):
        read_image(path).table()
    with pytest.raises(BadRequestError, match="image form"):
        machine.export_image(path, "zip")


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("fmt", "layer"),
    [
        *(("x86_32", "Intel"), ("x86_32_pae", "IntelPAE"), ("x86_64", "Intel32e")),
        ("x86_64_la57", "Five"),
    ],
)
def test_volatility3_agrees(tmp_path, fmt, layer, form):
    pytest.importorskip("volatility3")
    from volatility3.framework import contexts, exceptions
    from volatility3.framework.layers import elf, intel, lime, physical

    class Five(intel.Intel32e):
        _maxvirtaddr = 57
        _structure = [("page map layer 5", 9, False), *intel.Intel32e._structure]  # noqa: RUF012 - theirs

    machine, table, va = marked(fmt)
    path = tmp_path / "image"
    machine.export_image(path, form)
    context = contexts.Context()
    context.config["file.location"] = path.as_uri()
    context.add_layer(physical.FileLayer(context, "file", "file"))
    base = "file"
    if form != "raw":
        kind = {"lime": lime.LimeLayer, "vmcore": elf.Elf64Layer}[form]
        context.config["base.base_layer"] = "file"
        context.add_layer(kind(context, "base", "base"))
        base = "base"
    context.config["v.memory_layer"] = base
    context.config["v.page_map_offset"] = table.root
    made = Five if layer == "Five" else getattr(intel, layer)
    theirs = made(context, "v", "v", metadata={"os": "Linux"})
    context.add_layer(theirs)
    mask = (1 << table.format.va_bits) - 1
    assert theirs.read(va & mask, 6) == b"abcdef"
    assert theirs.read(direct(table) + 0x1234567 & mask, len(MARK)) == MARK
    for at in (va, va + 1000, direct(table) + 0x5432100):
        assert theirs.translate(at & mask)[0] == table.translate(at).paddr
    with pytest.raises(exceptions.InvalidAddressException):
        theirs.translate(va + 0x10000 & mask)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fmt",
    [
        *("x86_64", "x86_64_la57", "arm64_4k_39", "arm64_4k_48", "arm64_16k_47", "arm64_16k_48"),
        *("arm64_64k_42", "arm64_64k_48", "arm64_4k_52", "arm64_16k_52", "arm64_64k_52"),
    ],
)
def test_drgn_opens_the_vmcore(tmp_path, fmt):
    drgn = pytest.importorskip("drgn")
    machine, table, va = marked(fmt)
    path = tmp_path / "vmcore"
    machine.export_image(path, "vmcore")
    prog = drgn.Program()
    prog.set_core_dump(str(path))
    assert prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL
    assert prog.read(va, 6) == b"abcdef"
    assert prog.read(0x1234567, len(MARK), physical=True) == MARK
    assert prog.read(direct(table) + 0x1234567, len(MARK)) == MARK
    with pytest.raises(drgn.FaultError):
        prog.read(va + (16 << 20), 1)
