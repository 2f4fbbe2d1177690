# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's command line: what is understood, kept, refused."""

import pytest

from physmem.firmware.cmdline import CommandLine
from physmem.firmware.cmdline_values import Amount, Cma, MemMap, parse_crashkernel
from physmem.lib.errors import BadInputError

M, G = 1 << 20, 1 << 30
parse = CommandLine.parse

UNDERSTOOD = [
    ("mem=512M", "mem", 512 * M),
    ("mem=0x20000000", "mem", 512 * M),
    ("mem=nopentium", "mem_nopentium", True),
    ("mem=1G mem=512M", "mem", 512 * M),
    ("kernelcore=1G", "kernelcore", Amount(size=G)),
    ("kernelcore=30%", "kernelcore", Amount(percent=30)),
    ("kernelcore=mirror", "kernelcore", Amount(mirror=True)),
    ("movablecore=16g", "movablecore", Amount(size=16 * G)),
    ("movablecore=200%", "movablecore", Amount(percent=200)),
    ("movable_node", "movable_node", True),
    ("movable-node", "movable_node", True),
    ("numa=off", "numa", "off"),
    ("numa=noacpi", "numa", "noacpi"),
    ("numa=fake=4", "numa_fake", "4"),
    ("numa=fake=512M", "numa_fake", "512M"),
    ("numa=fake=2*512,1024", "numa_fake", "2*512,1024"),
    ("numa_zonelist_order=zone", "numa_zonelist_order", "zone"),
    ("highmem=256M", "highmem", 256 * M),
    ("vmalloc=256M", "vmalloc", 256 * M),
    ("reservetop=16M", "reservetop", 16 * M),
    ("nogbpages", "nogbpages", True),
    ("transparent_hugepage=never", "transparent_hugepage", "never"),
    ("memblock=debug", "memblock_debug", True),
    ("hashdist=0", "hashdist", False),
    ("hashdist=1", "hashdist", True),
    ("dhash_entries=4096", "dhash_entries", 4096),
    ("ihash_entries=2k", "ihash_entries", 2048),
    ("cma=64M", "cma", Cma(64 * M)),
    ("cma=64M@1G", "cma", Cma(64 * M, G, G + 64 * M, fixed=True)),
    ("cma=64M@1G-2G", "cma", Cma(64 * M, G, 2 * G)),
    ("debug_pagealloc=on", "debug_pagealloc", True),
    ("debug_pagealloc=off", "debug_pagealloc", False),
    ("page_owner=on", "page_owner", True),
    ("noexec=off", "noexec", "off"),
    ("nr_cpus=8", "nr_cpus", 8),
    ("log_buf_len=1M", "log_buf_len", M),
]


@pytest.mark.parametrize(("text", "name", "value"), UNDERSTOOD)
def test_understood(text, name, value):
    line = parse(text)
    assert getattr(line, name) == value
    assert line.unknown == ()
    assert line.text == text


@pytest.mark.parametrize(
    ("text", "requests"),
    [
        ("exactmap", (MemMap("exactmap"),)),
        ("512M", (MemMap("limit", 512 * M),)),
        ("1M@2M", (MemMap("@", M, 2 * M),)),
        ("1M#2M,1M$3M", (MemMap("#", M, 2 * M), MemMap("$", M, 3 * M))),
        ("1M!0x100000000", (MemMap("!", M, 4 * G),)),
        ("4K%8K", (MemMap("%", 4096, 8192),)),
        ("4K%8K-1", (MemMap("%", 4096, 8192, 1),)),
        ("4K%8K+0xefffffff", (MemMap("%", 4096, 8192, None, 0xEFFFFFFF),)),
        ("4K%8K-1+2", (MemMap("%", 4096, 8192, 1, 2),)),
    ],
)
def test_memmap(text, requests):
    assert parse(f"memmap={text}").memmap == requests


def test_memmap_requests_add_up():
    assert len(parse("memmap=exactmap memmap=640K@0 memmap=1M@1M,2M@8M").memmap) == 4


def test_words_quotes_and_what_is_for_init():
    line = parse('root="/dev/my disk" quiet nokaslr  -- mem=1G')
    assert line.options == (("root", "/dev/my disk"), ("quiet", None), ("nokaslr", None))
    assert line.unknown == ("root", "quiet")
    assert line.nokaslr
    assert line.mem is None
    assert line.has("quiet")
    assert not line.has("mem")
    assert line.value("root") == "/dev/my disk"
    assert line.value("none") is None
    assert parse("").options == ()


@pytest.mark.parametrize(
    ("ram", "size"), [(256 * M, 0), (G, 64 * M), (2 * G, 128 * M), (64 * G, 128 * M)]
)
def test_crashkernel_ranges(ram, size):
    assert parse_crashkernel("512M-2G:64M,2G-:128M@16M").size_for(ram) == size


def test_crashkernel_forms():
    plain, high = parse("crashkernel=256M@16M crashkernel=1G,high").crashkernel
    assert (plain.size_for(G), plain.offset, plain.place) == (256 * M, 16 * M, "")
    assert (high.size_for(G), high.offset, high.place) == (G, None, "high")
    assert parse_crashkernel("72M,low").place == "low"


REFUSED = [
    "mem=",
    "mem=lots",
    "mem=0",
    "mem=512MB",
    "mem=99999999999999999999999",
    "memmap=",
    "memmap=1M@",
    "memmap=1M?2M",
    "memmap=0@1M",
    "memmap=4K%8K-x",
    "memmap=1M@0xffffffffffffffff",
    "kernelcore=",
    "kernelcore=10%%",
    "movablecore=mirror",
    "movable_node=1",
    "numa=maybe",
    "numa=fake=",
    "numa_zonelist_order=x",
    "nogbpages=1",
    "transparent_hugepage=sometimes",
    "memblock=loud",
    "hashdist=perhaps",
    "dhash_entries=many",
    "cma=1M@x",
    "cma=1M+2M",
    "crashkernel=a-b:1M",
    "crashkernel=1G:64M",
    "crashkernel=",
    "highmem=1MB",
]


@pytest.mark.parametrize("text", REFUSED)
def test_refused_by_name_with_what_to_write(text):
    with pytest.raises(BadInputError) as caught:
        parse(f"quiet {text}")
    assert str(caught.value).startswith(f"{text}: write ")
    line = parse(text, strict=False)
    assert line.unknown == (text.partition("=")[0],)
