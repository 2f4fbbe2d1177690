# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes, orders and limits of caches against real kernels and worked examples."""

import ast
import csv
import json
import lzma
import re
from pathlib import Path

import pytest

from physmem.lib.errors import BadMachineError, BadRequestError
from physmem.slab.flags import (
    SLAB_CONSISTENCY_CHECKS,
    SLAB_HWCACHE_ALIGN,
    SLAB_KMALLOC,
    SLAB_POISON,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_RED_ZONE,
    SLAB_STORE_USER,
    SLAB_TYPESAFE_BY_RCU,
    parse_flags,
)
from physmem.slab.kmalloc_classes import kmalloc_classes, kmalloc_size_roundup
from physmem.slab.slab_config import SlabConfig
from physmem.slab.slab_sizes import cpucache_limits, slab_geometry
from physmem.slab.slub_boot import sizeof_kmem_cache, sizeof_kmem_cache_node
from physmem.slab.slub_config import SlubConfig
from physmem.slab.slub_sizes import calculate_order, slub_geometry, up
from physmem.views.slabinfo import parse_slabinfo, slabinfo

pytestmark = pytest.mark.pure
VECTORS = Path(__file__).parents[1] / "vectors"
LINES_OF_KNOWN_SIZE = 964
"""Of 2,134 lines."""
FZPU = SLAB_CONSISTENCY_CHECKS | SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER


def live_rows():
    with (VECTORS / "slub_geometry_6.18.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_all_235_caches_of_a_running_6_18():
    config = SlubConfig(kernel="6.18", cpus=2)
    rows = live_rows()
    assert len(rows) == 235
    for row in rows:
        flags = SLAB_HWCACHE_ALIGN * (row["hwcache_align"] == "1")
        flags |= SLAB_TYPESAFE_BY_RCU * (row["rcu"] == "1")
        flags |= SLAB_RECLAIM_ACCOUNT * (row["reclaim"] == "1")
        # its creator places the free pointer, which sysfs does not show
        inside = 0 if row["slabinfo_name"] == "vm_area_struct" else None
        g = slub_geometry(
            config,
            int(row["object_size"]),
            int(row["align"]),
            flags,
            ctor=row["ctor"] not in {"", "0", "-"},
            freeptr_offset=inside,
        )
        wanted = {
            "slab_size": g.size,
            "order": g.order,
            "objs": g.objects,
            "leftover": (4096 << g.order) - g.objects * g.size,
            "min_partial": g.min_partial,
            "cpu_partial": g.cpu_partial,
            "cpu_partial_slabs": g.cpu_partial_slabs,
        }
        assert {name: int(row[name]) for name in wanted} == wanted, row["slabinfo_name"]
        if row["hwcache_align"] == "1":
            assert g.align == int(row["align"])


def recorded_slabinfo():
    """Recording, "start" or "end", text of /proc/slabinfo."""
    with lzma.open(VECTORS / "slabinfo_recordings.txt.xz", "rt") as file:
        parts = file.read().split("=== ")[1:]
    for part in parts:
        head, text = part.split("\n", 1)
        yield *head.split(), text


def recorded_config(name):
    cpus = 2 if "2nodes" in name else 1
    i386, arm64 = "i386" in name, "arm64" in name
    return SlubConfig(
        kernel=name.split("-")[1], cpus=cpus, nr_node_ids=cpus, word=4 if i386 else 8,
        line=32 if i386 else 64, kmalloc_minalign=128 if arm64 else 8,
        freelist_random=True, freelist_hardened=True,
    )  # fmt: skip


HW, RCU, RECLAIM = SLAB_HWCACHE_ALIGN, SLAB_TYPESAFE_BY_RCU, SLAB_RECLAIM_ACCOUNT
CTOR = 1 << 40
# object sizes as events of the recording with objects tell them; flags as their creators give them
KNOWN_6_1 = {
    "Acpi-Operand": (72, 0), "Acpi-State": (80, 0), "anon_vma": (96, RCU | CTOR),
    "anon_vma_chain": (64, 0), "cred_jar": (176, HW), "dentry": (192, RECLAIM),
    "files_cache": (704, HW), "filp": (232, HW), "ftrace_event_field": (56, 0),
    "inode_cache": (632, RECLAIM | CTOR), "kernfs_node_cache": (128, 0),
    "lsm_file_cache": (24, 0), "lsm_inode_cache": (32, 0), "mm_struct": (1096, HW),
    "mnt_cache": (320, HW), "names_cache": (4096, HW), "numa_policy": (272, 0),
    "pde_opener": (40, 0), "perf_event": (1248, 0), "pid": (128, HW), "proc_dir_entry": (192, 0),
    "proc_inode_cache": (704, RECLAIM | CTOR), "radix_tree_node": (576, RECLAIM | CTOR),
    "seq_file": (120, 0), "shared_policy_node": (48, 0), "shmem_inode_cache": (776, CTOR),
    "sighand_cache": (2080, HW | RCU | CTOR), "signal_cache": (1152, HW), "sigqueue": (80, 0),
    "skbuff_head_cache": (232, HW), "vm_area_struct": (152, 0), "vmap_area": (64, 0),
}  # fmt: skip


def test_every_line_of_every_recorded_slabinfo():
    lines = sizes = 0
    for name, _when, text in recorded_slabinfo():
        config = recorded_config(name)
        general = {each.name: each for each in kmalloc_classes(config)}
        for row in parse_slabinfo(text):
            order = calculate_order(config, row.objsize)
            assert (4096 << order) // row.objsize == row.objperslab, (name, row)
            assert 1 << order == row.pagesperslab, (name, row)
            lines += 1
            if row.name in general:
                each = general[row.name]
                g = slub_geometry(config, each.size, each.align)
            elif row.name in {"kmem_cache", "kmem_cache_node"}:
                of = sizeof_kmem_cache if row.name == "kmem_cache" else sizeof_kmem_cache_node
                size, natural = of(config), config.kmalloc_minalign
                if name.startswith("linux-6.1-") and not size & (size - 1):
                    natural = max(natural, size)
                g = slub_geometry(config, size, natural, SLAB_HWCACHE_ALIGN)
            elif row.name in KNOWN_6_1 and name.startswith("linux-6.1-x86_64"):
                size, flags = KNOWN_6_1[row.name]
                g = slub_geometry(config, size, 0, flags & (CTOR - 1), ctor=bool(flags & CTOR))
            else:
                continue
            sizes += 1
            found = (row.objsize, row.objperslab, row.pagesperslab)
            assert (g.size, g.objects, g.pages) == found, (name, row)
    assert (lines, sizes) == (2134, LINES_OF_KNOWN_SIZE)


def test_recorded_texts_are_printed_as_the_kernel_did():
    texts = [text for _name, _when, text in recorded_slabinfo()]
    assert len(texts) == 14
    for text in texts:
        assert slabinfo(parse_slabinfo(text)) == text


def test_the_general_caches_are_listed_in_the_kernels_order():
    for name, _when, text in recorded_slabinfo():
        known = [each.name for each in reversed(kmalloc_classes(recorded_config(name)))]
        mine = [row.name for row in parse_slabinfo(text)]
        at = mine.index(known[0])
        assert mine[at:] == [*known, "kmem_cache_node", "kmem_cache"], name


def dump_tuples():
    for line in (VECTORS / "slabinfo_slab_dumps.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, rest = line.split(" ", 1)
            for text in rest.split(";"):
                yield (4 if name == "D4" else 8), tuple(map(int, text.split()))


def reproduces(word, wanted):
    size, objects, pages, limit, batch = wanted
    for align in (0, 8, 16, 32, 64, 128):
        for flags in (0, SLAB_RECLAIM_ACCOUNT):
            raws = {size} | ({500} if size == 512 else set())
            for raw in raws:
                try:
                    g = slab_geometry(SlabConfig(word=word), raw, align, flags)
                except BadRequestError:
                    continue
                got = (g.buffer_size, g.num, 1 << g.gfporder)
                config = SlabConfig(word=word)
                if got == (size, objects, pages) and cpucache_limits(config, size)[:2] == (
                    limit,
                    batch,
                ):
                    return True
    return False


def test_234_of_234_tuples_of_public_dumps():
    tuples = list(dump_tuples())
    assert len(tuples) == 234
    assert [each for each in tuples if not reproduces(*each)] == []


def test_sizes_of_the_worked_slab_examples():
    config = SlabConfig(possible_cpus=2)
    seen = 0
    for line in json.loads((VECTORS / "vectors_slab2624.json").read_text()):
        match = re.match(r"G size (\d+) hw=(\d) -> (.*)", line)
        if match:
            g = slab_geometry(config, int(match[1]), 0, SLAB_HWCACHE_ALIGN * int(match[2]))
            limit = cpucache_limits(config, g.buffer_size)[0]
            assert ast.literal_eval(match[3]) == {
                "buffer_size": g.buffer_size, "align": g.align, "num": g.num,
                "order": g.gfporder, "left": g.left_over, "off": g.off_slab,
                "moved_on": g.moved_on, "slab_size": g.slab_size, "colour": g.colour,
                "limit": limit,
            }, line  # fmt: skip
            seen += 1
    assert seen == 7


@pytest.mark.parametrize(
    ("shape", "table"),
    [
        ((4, 32, 32), ("32/113/on/480/0 64/59/on/288/1 96/40/on/192/2 128/30/on/160/3 "
         "192/20/on/128/4 256/15/on/96/5 512/8/off/60/0 1024/4/off/44/0")),
        ((4, 128, 128), "32/113/on/480/0 64/59/on/320/0 128/30/on/256/0 256/15/on/128/1"),
        ((8, 64, 64), ("32/112/on/512/0 64/59/on/320/0 128/30/on/192/1 192/20/on/128/2 "
         "256/15/on/128/2 512/8/off/80/0 2048/2/off/56/0 4096/1/off/52/0")),
        ((8, 128, 128), "32/112/on/512/0 64/59/on/320/0 128/30/on/256/0 256/15/on/128/1"),
    ],
)  # fmt: skip
def test_general_caches_of_2_6_24(shape, table):
    word, l1, line = shape
    config = SlabConfig(word=word, l1_cache_bytes=l1, line=line)
    got = {}
    for i, size in enumerate(config.general_sizes):
        early = i == 0 or size == config.general_size(config.sizeof_list3)
        g = slab_geometry(config, size, 8, SLAB_HWCACHE_ALIGN, early=early)
        where = "off" if g.off_slab else "on"
        got[size] = f"{size}/{g.num}/{where}/{g.slab_size}/{g.colour}"
    for text in table.split():
        assert got[int(text.split("/")[0])] == text


def test_structures_of_2_6_24():
    sizes = {
        (4, False): (28, 16, 20, 52, 80), (4, True): (28, 20, 24, 56, 204),
        (8, False): (48, 16, 24, 96, 120), (8, True): (48, 24, 32, 104, 368),
    }  # fmt: skip
    for (word, smp), wanted in sizes.items():
        c = SlabConfig(word=word, smp=smp, nr_cpus=32)
        assert wanted == (
            c.sizeof_slab, c.sizeof_array_cache, c.sizeof_arraycache_init, c.sizeof_list3,
            c.sizeof_kmem_cache,
        )  # fmt: skip


def test_debug_strides_of_2_6_24():
    config = SlabConfig(debug=True)
    wanted = {32: (56, 67), 64: (88, 44), 128: (152, 25), 192: (216, 18), 256: (280, 14),
              512: (536, 7), 1024: (1048, 7), 2048: (2072, 3), 4096: (4096, 1)}  # fmt: skip
    for size, (stride, num) in wanted.items():
        early = size in {32, 128}
        g = slab_geometry(config, size, 8, SLAB_HWCACHE_ALIGN, early=early)
        assert (g.buffer_size, g.num) == (stride, num), size


def test_debug_strides_of_6_1():
    config = SlubConfig(cpus=1)
    wanted = {
        FZPU: {8: 112, 16: 128, 32: 160, 64: 256, 96: 200, 128: 384, 192: 296, 256: 768,
               512: 1536, 1024: 3072, 2048: 6144, 4096: 12288, 8192: 24576},
        SLAB_POISON: {8: 16, 64: 128, 1024: 2048},
        SLAB_STORE_USER: {8: 80, 64: 192},
        SLAB_RED_ZONE: {8: 32, 64: 192, 96: 120},
    }  # fmt: skip
    align = {each.size: each.align for each in kmalloc_classes(config)}
    for flags, strides in wanted.items():
        for size, stride in strides.items():
            g = slub_geometry(config, size, align[size], flags | SLAB_KMALLOC)
            assert g.size == stride, (hex(flags), size)
    g = slub_geometry(config, 1024, 1024, FZPU | SLAB_KMALLOC)
    assert (g.order, g.objects) == (3, 10)


def test_kmalloc_table_by_cpus():
    rows = {
        512: "0/8/13 1/16/7 1/16/7 2/32/4 2/32/4 2/32/4 2/32/4 3/64/2",
        192: "0/21/12 0/21/12 0/21/12 0/21/12 1/42/6 1/42/6 1/42/6 1/42/6",
        1024: "1/8/6 2/16/3 2/16/3 3/32/2 3/32/2 3/32/2 3/32/2 3/32/2",
        4096: " ".join(["3/8/2"] * 8),
    }
    for size, row in rows.items():
        got = []
        for cpus in (1, 2, 4, 8, 16, 32, 64, 128):
            g = slub_geometry(SlubConfig(cpus=cpus), size, size & -size)
            got.append(f"{g.order}/{g.objects}/{g.cpu_partial_slabs}")
        assert " ".join(got) == row, size


def test_order_rules_differ_where_told():
    for cpus in (1, 2, 16, 512):
        old, new = SlubConfig(kernel="6.1", cpus=cpus), SlubConfig(kernel="6.12", cpus=cpus)
        differ = [
            size for size in range(8, 32776, 8)
            if calculate_order(old, size) != calculate_order(new, size)
        ]  # fmt: skip
        assert set(differ) <= set(range(10928, 12288, 8))


def test_rounding_up():
    config = SlubConfig()
    assert [kmalloc_size_roundup(config, n) for n in (0, 8, 9, 97, 193, 8192, 8193)] == [
        0, 8, 16, 128, 256, 8192, 16384,
    ]  # fmt: skip
    assert kmalloc_size_roundup(SlubConfig(kernel="6.12"), 5 << 20) == 5 << 20
    assert up(5, 4) == 8


def test_what_cannot_be():
    with pytest.raises(BadMachineError):
        SlubConfig(kernel="5.0")
    with pytest.raises(BadMachineError):
        SlubConfig(line=3)
    with pytest.raises(BadMachineError):
        SlabConfig(cpus=40, nr_cpus=32)
    with pytest.raises(BadRequestError):
        slab_geometry(SlabConfig(), 8 << 20)
    with pytest.raises(BadRequestError):
        slab_geometry(SlabConfig(), 4)
    with pytest.raises(BadRequestError):
        parse_flags("SLAB_NONSENSE")
    with pytest.raises(BadRequestError):
        parse_flags(1 << 31)
