# SPDX-License-Identifier: GPL-2.0-or-later
"""Entries, indices and addresses of every format, against values worked out by hand."""

import pytest

import physmem
from physmem.lib.errors import BadRequestError
from physmem.lib.ram import Ram
from physmem.pgtable.format import NAMES
from physmem.pgtable.formats import page_table_format, page_table_formats
from physmem.pgtable.source import bump
from physmem.pgtable.table import PageTable

pytestmark = pytest.mark.pure
X64 = page_table_format("x86_64")


def test_all_formats_are_named():
    assert physmem.page_table_formats() == page_table_formats()
    assert len(page_table_formats()) == 18
    with pytest.raises(BadRequestError, match="known are x86_32"):
        page_table_format("vax")


@pytest.mark.parametrize(
    ("name", "va", "indices"),
    [
        ("x86_32", 0xC0123456, [768, 291]),
        ("x86_32_pae", 0xC0123456, [3, 0, 291]),
        ("x86_32_pae", 0xFFFFF000, [3, 511, 511]),
        ("x86_64", 0xFFFF888012345678, [273, 0, 145, 325]),
        ("x86_64", 0xFFFF810012345678, [258, 0, 145, 325]),
        ("x86_64", 0xFFFFFFFF81000000, [511, 510, 8, 0]),
        ("x86_64", 0xFFFFC90000000000, [402, 0, 0, 0]),
        ("x86_64", 0xFFFFEA0000000000, [468, 0, 0, 0]),
        ("x86_64_la57", 0xFF11000012345678, [273, 0, 0, 145, 325]),
    ],
)
def test_indices(name, va, indices):
    fmt = page_table_format(name)
    assert [fmt.index(va, n) for n in range(len(fmt.levels))] == indices


@pytest.mark.parametrize(
    ("name", "paddr", "prot", "position", "entry"),
    [
        ("x86_32", 0x400000, "PAGE_KERNEL_EXEC", 0, 0x4001E3),
        ("x86_64", 0x12345000, "PAGE_KERNEL", -1, 0x8000000012345163),
        ("x86_64", 0x12200000, "PAGE_KERNEL", -2, 0x80000000122001E3),
        ("x86_64", 0x12200000, "PAGE_KERNEL_LARGE", -2, 0x80000000122001E3),
        ("arm64_4k_48", 0x40000000, "PAGE_KERNEL", -1, 0x00E8000040000703),
        ("arm64_4k_48", 0x40000000, "PAGE_KERNEL", -2, 0x00E8000040000701),
        ("riscv64_sv39", 0x80200000, "PAGE_KERNEL", -1, 0x200800E7),
        ("riscv64_sv39", 0x80200000, "PAGE_KERNEL", -2, 0x200800E7),
    ],
)
def test_leaf_entries(name, paddr, prot, position, entry):
    fmt = page_table_format(name)
    assert fmt.encode_leaf(paddr, fmt.prot(prot), position) == entry
    assert fmt.leaf_address(entry, position) == paddr


@pytest.mark.parametrize(
    ("name", "prot", "value"),
    [
        ("x86_64", "PAGE_KERNEL", 0x8000000000000163),
        ("x86_64", "PAGE_KERNEL_EXEC", 0x163),
        ("x86_64", "PAGE_KERNEL_LARGE", 0x80000000000001E3),
        ("x86_64", "PAGE_KERNEL_LARGE_EXEC", 0x1E3),
        ("x86_64", "PAGE_KERNEL_RO", 0x8000000000000161),
        ("x86_64", "PAGE_KERNEL_ROX", 0x161),
        ("x86_64", "PAGE_NONE", 0x120),
        ("x86_64", "PAGE_SHARED", 0x8000000000000027),
        ("x86_64", "PAGE_READONLY_EXEC", 0x25),
        ("x86_32", "PAGE_KERNEL", 0x163),
        ("arm64_4k_48", "PAGE_KERNEL", 0x00E8000000000703),
        ("arm64_4k_48", "PAGE_KERNEL_RO", 0x00E0000000000783),
        ("arm64_4k_48", "PAGE_KERNEL_EXEC", 0x00C8000000000703),
        ("arm64_4k_48", "PAGE_KERNEL_ROX", 0x00C0000000000783),
        ("arm64_4k_48", "PAGE_SHARED", 0x0068000000000FC3),
        ("arm64_4k_48", "PAGE_READONLY", 0x0060000000000FC3),
        ("arm64_4k_48", "PAGE_READONLY_EXEC", 0x0020000000000FC3),
        ("riscv64_sv48", "PAGE_KERNEL", 0xE7),
        ("riscv64_sv48", "PAGE_KERNEL_EXEC", 0xEF),
        ("riscv64_sv48", "PAGE_SHARED", 0x57),
        ("riscv64_sv48", "PAGE_READ", 0x53),
    ],
)
def test_protections(name, prot, value):
    assert page_table_format(name).prot(prot) == value


def test_old_software_bits():
    old = page_table_format("x86_64", old_bits=True)
    assert old.prot("PAGE_NONE") == 0xA0
    assert old.is_present(0xA0)
    assert not old.is_present(0x40)
    assert old.pte_file(0x40)
    assert old.prot("PAGE_KERNEL_NOCACHE") & 0x18 == 0x10
    assert X64.prot("PAGE_KERNEL_NOCACHE") & 0x18 == 0x18


def test_user_pte_of_x86_32():
    fmt = page_table_format("x86_32")
    assert fmt.pte_mkdirty(fmt.mk_pte(0x12345, fmt.prot("PAGE_SHARED"))) == 0x12345067


def test_table_entries():
    assert page_table_format("riscv64_sv39").encode_table(0x81000000) == 0x20400001
    assert page_table_format("arm64_4k_48").encode_table(0x40000000, kernel=True) == 0x40000003
    assert X64.encode_table(0x1000, kernel=True) == 0x1063
    assert X64.encode_table(0x1000) == 0x1067


def test_pse_36_moves_high_bits():
    fmt = page_table_format("x86_32")
    entry = fmt.encode_leaf(0x12_0040_0000, 0x3, 0)
    assert entry == 0x00400083 | 0x12 << 13
    assert fmt.leaf_address(entry, 0) == 0x12_0040_0000


def test_52_bit_addresses_of_arm64():
    lpa = page_table_format("arm64_64k_52")
    assert lpa.encode_leaf(0xF123456710000, 0) == 0x12345671F000
    assert lpa.leaf_address(0x12345671F000) == 0xF123456710000
    lpa2 = page_table_format("arm64_4k_52")
    entry = lpa2.encode_leaf(0xD123456710000, 0)
    assert entry == 0x1_1234_5671_0000 | 3 << 8
    assert lpa2.leaf_address(entry) == 0xD123456710000


def test_svnapot_leaf():
    fmt = page_table_format("riscv64_sv39")
    ram = Ram(1 << 20)
    table = PageTable(fmt, ram, bump(0x1000, 0x10000))
    table.map(0x10000, 0x80230000, 0x10000, contiguous=True)
    walk = table.translate(0x15123)
    assert walk.steps[-1].entry == 0x800000002008E0E7
    assert (walk.paddr, walk.size) == (0x80235123, 0x10000)


@pytest.mark.parametrize("name", page_table_formats())
def test_geometry(name):
    fmt = page_table_format(name)
    assert fmt.levels[0].name == "pgd"
    assert fmt.levels[-1].name == "pte"
    for above, below in zip(fmt.levels, fmt.levels[1:], strict=False):
        assert above.shift == below.shift + below.bits
        assert NAMES.index(above.name) < NAMES.index(below.name)
    assert fmt.levels[-1].shift == fmt.page_shift
    top = fmt.levels[0]
    assert top.shift + top.bits == fmt.va_bits
    assert fmt.entry_bytes << top.bits <= fmt.page_size


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("x86_32", (0, 0xFFFFFFFF), (1 << 32, (1 << 64) - 1)),
        ("x86_64", (0x7FFFFFFFFFFF, 0xFFFF800000000000), (0x800000000000, 0xFFFF7FFFFFFFFFFF)),
        ("x86_64_la57", (0xFFFFFFFFFFFFFF, 0xFF00000000000000), (1 << 56, 0xFEFF << 48)),
        ("arm64_4k_48", (0xFFFFFFFFFFFF, 0xFFFF000000000000), (1 << 48, 0xFFFEFFFFFFFFFFFF)),
        ("riscv64_sv39", (0x3FFFFFFFFF, 0xFFFFFFC000000000), (1 << 38, 0xFFFFFFBFFFFFFFFF)),
    ],
)
def test_canonical_addresses(name, good, bad):
    fmt = page_table_format(name)
    assert all(fmt.canonical(va) for va in good)
    assert not any(fmt.canonical(va) for va in bad)


def test_dirty_and_writable_of_arm64():
    fmt = page_table_format("arm64_4k_48")
    clean = fmt.mk_pte(1, fmt.prot("PAGE_SHARED"))
    assert fmt.pte_write(clean)
    assert not fmt.pte_dirty(clean)
    dirty = fmt.pte_mkdirty(clean)
    assert fmt.pte_dirty(dirty)
    assert not dirty & 1 << 7  # the hardware may write
    protected = fmt.pte_wrprotect(dirty)
    assert fmt.pte_dirty(protected)
    assert not fmt.pte_write(protected)
    assert protected & 1 << 7
    cleaned = fmt.pte_mkclean(dirty)
    assert not fmt.pte_dirty(cleaned)
    assert fmt.pte_write(cleaned)
    written_by_hardware = clean & ~(1 << 7)
    assert fmt.pte_dirty(written_by_hardware)
    assert fmt.pte_dirty(fmt.pte_wrprotect(written_by_hardware))


@pytest.mark.parametrize("name", page_table_formats())
def test_changes_of_one_bit(name):
    fmt = page_table_format(name)
    pte = fmt.mk_pte(5, fmt.prot("PAGE_SHARED"))
    assert fmt.pte_pfn(pte) == 5
    assert fmt.pte_user(pte)
    assert fmt.pte_young(fmt.pte_mkyoung(fmt.pte_mkold(pte)))
    assert not fmt.pte_young(fmt.pte_mkold(pte))
    assert not fmt.pte_write(fmt.pte_wrprotect(pte))
    assert fmt.pte_write(fmt.pte_mkwrite(fmt.pte_wrprotect(pte)))
    assert fmt.pte_dirty(fmt.pte_mkdirty(pte))
    assert not fmt.pte_dirty(fmt.pte_mkclean(fmt.pte_mkdirty(pte)))
    assert fmt.pte_special(fmt.pte_mkspecial(pte))
    assert fmt.pte_exec(fmt.pte_mkexec(pte))
    if name != "x86_32":
        assert not fmt.pte_exec(fmt.pte_exprotect(fmt.pte_mkexec(pte)))
    changed = fmt.pte_modify(fmt.pte_mkdirty(pte), fmt.prot("PAGE_READONLY"))
    assert fmt.pte_pfn(changed) == 5
    assert fmt.pte_dirty(changed)
    assert not fmt.pte_write(changed)
    none = fmt.pte_modify(pte, fmt.prot("PAGE_NONE"))
    assert fmt.is_present(none)
    assert not fmt.is_valid(none)
    assert fmt.pte_modify(none, fmt.prot("PAGE_SHARED")) == pte
