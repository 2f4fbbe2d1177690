# SPDX-License-Identifier: GPL-2.0-or-later
"""gfp flags as text and numbers."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physmem.lib.errors import BadRequestError, BadTraceError
from physmem.mm import gfp
from physmem.mm.gfp import GFP_6_1, GFP_6_12, TABLES, decode_gfp, format_gfp, parse_gfp
from physmem.mm.gfp_bits import GFP_COLD_BIT, GFP_LOCAL_ONLY

PRINTED = (
    ("GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO", 0x140DCA),
    ("GFP_KERNEL_ACCOUNT|__GFP_NOWARN|__GFP_COMP|__GFP_NOMEMALLOC", 0x4C2CC0),
    ("GFP_TRANSHUGE|__GFP_NORETRY|__GFP_THISNODE", 0x3D24CA | 0x400),
    ("__GFP_IO|__GFP_FS|__GFP_NOWARN|__GFP_NORETRY|__GFP_COMP", 0x520C0),
    ("none", 0),
)


@pytest.mark.parametrize(("text", "bits"), PRINTED)
def test_printed_flags_are_read_and_printed_again(text, bits):
    for table in (GFP_6_1, GFP_6_12):
        assert format_gfp(decode_gfp(text, table), table) == text
    if "TRANSHUGE" not in text:
        assert decode_gfp(text, GFP_6_1) == bits


def test_composites():
    assert gfp.GFP_KERNEL == 0xCC0
    assert gfp.GFP_HIGHUSER_MOVABLE == 0x100CCA
    assert gfp.GFP_TRANSHUGE_LIGHT == 0x1C20CA
    assert gfp.GFP_TRANSHUGE == 0x1C24CA
    assert (GFP_6_1["GFP_ATOMIC"], GFP_6_12["GFP_ATOMIC"]) == (0xA20, 0x820)
    assert (GFP_6_1["GFP_NOWAIT"], GFP_6_12["GFP_NOWAIT"]) == (0x800, 0x2800)
    assert "__GFP_ATOMIC" not in GFP_6_12.bits


def test_the_bits_of_the_oldest_kernel():
    """Documented values, and what kernels here make of them."""
    table = TABLES["2.6.24"]
    written = {
        "GFP_ATOMIC": 0x20,
        "GFP_NOWAIT": 0,
        "GFP_NOIO": 0x10,
        "GFP_NOFS": 0x50,
        "GFP_KERNEL": 0xD0,
        "GFP_TEMPORARY": 0x800D0,
        "GFP_USER": 0x200D0,
        "GFP_HIGHUSER": 0x200D2,
        "GFP_HIGHUSER_MOVABLE": 0x1200D2,
        "GFP_THISNODE": 0x41200,
        "__GFP_COLD": 0x100,
        "__GFP_COMP": 0x4000,
    }
    assert {name: table[name] for name in written} == written
    for name in ("GFP_NOIO", "GFP_NOFS", "GFP_KERNEL", "GFP_USER", "GFP_HIGHUSER_MOVABLE"):
        assert table.internal(table[name]) == GFP_6_1[name]
    assert table.internal(0x41200) == GFP_LOCAL_ONLY
    assert table.internal(0x100) == GFP_COLD_BIT
    assert table.internal(0x2000 | 1 << 30) == 0  # this Linux has no such bits
    assert parse_gfp("GFP_KERNEL|__GFP_COLD", table) == 0x1D0
    assert format_gfp(0x1D0, table) == "GFP_KERNEL|__GFP_COLD"
    assert format_gfp(0, table) == "none"
    with pytest.raises(BadRequestError, match=r"__GFP_ATOMIC.* Linux 2\.6\.24"):
        parse_gfp("__GFP_ATOMIC", table)


def test_the_two_kernels_print_differently():
    assert format_gfp(0x2800, GFP_6_1) == "GFP_NOWAIT|__GFP_NOWARN"
    assert format_gfp(0x2800, GFP_6_12) == "GFP_NOWAIT"
    assert format_gfp(0xA20, GFP_6_1) == "GFP_ATOMIC"
    assert format_gfp(0xA20, GFP_6_12) == "GFP_ATOMIC|0x200"
    assert format_gfp(0x820, GFP_6_1) == "GFP_NOWAIT|__GFP_HIGH"


@given(bits=st.integers(0, (1 << 28) - 1), name=st.sampled_from(sorted(TABLES)))
def test_any_bits_survive_printing(bits, name):
    table = TABLES[name]
    assert decode_gfp(format_gfp(bits, table), table) == bits


@given(text=st.text(max_size=20))
def test_no_text_crashes(text):
    for read, error in ((decode_gfp, BadTraceError), (parse_gfp, BadRequestError)):
        with contextlib.suppress(error):
            assert 0 <= read(text, GFP_6_1) < 1 << 32


def test_names_that_depend_on_the_configuration_are_read_as_nothing():
    assert decode_gfp("GFP_KERNEL|__GFP_SKIP_KASAN|__GFP_NOLOCKDEP", GFP_6_12) == 0xCC0


@pytest.mark.parametrize("text", ["", "GFP_KERNEL|", "GFP_KERNELX", "0x", "0xg", "none|GFP_DMA"])
def test_what_no_kernel_prints(text):
    with pytest.raises(BadTraceError, match="no gfp flag"):
        decode_gfp(text, GFP_6_1)


def test_parse():
    assert parse_gfp("GFP_KERNEL | __GFP_ZERO") == 0xDC0
    assert parse_gfp(0xDC0) == 0xDC0
    assert parse_gfp("__GFP_DMA32|__GFP_DMA") == 5
    assert parse_gfp("GFP_NOWAIT", GFP_6_12) == 0x2800
    with pytest.raises(BadRequestError, match="GFP_KERNAL"):
        parse_gfp("GFP_KERNAL")
    with pytest.raises(BadRequestError, match="32 bits"):
        parse_gfp(-1)
    with pytest.raises(BadRequestError, match="32 bits"):
        parse_gfp(1 << 32)
