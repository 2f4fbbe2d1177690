# SPDX-License-Identifier: GPL-2.0-or-later
"""Knobs: what they say when a value is wrong, and what they do to a machine."""

import contextlib
from itertools import pairwise

import pytest

from physmem import KNOBS, Machine, Tuning, tune
from physmem.lib.errors import OutOfMemoryError, TuningError
from physmem.machine.placement import get_placement
from physmem.mm import placement as p

pytestmark = pytest.mark.pure

KERNELS = ("2.6.24", "6.1", "6.12")
MOVABLE = "GFP_HIGHUSER_MOVABLE"


def tuned(machine, **settings):
    return tune(machine, Tuning.parse(settings))


def build(size="64MiB", kernel="6.1", cpus=1, **more):
    return Machine.build(size, kernel=kernel, cpus=cpus, **more)


# ---- reading settings ----------------------------------------------------------------------------

GOOD = {
    "mobility": ("on", "off"),
    "pageblock_order": ("1", "9", "13"),
    "max_order": ("1", "10", "13"),
    "pcp": ("off", "auto", "512"),
    "batch": ("1", "63"),
    "shuffle": ("off", "0", "42"),
    "highatomic": ("on", "off"),
    "fallback": ("linux", "defrag", "none"),
    "list_order": ("linux", "lifo", "fifo", "address"),
    "confine": ("off", "64MiB", "1GiB@high", "32m@low"),
    "tree": ("on", "off"),
    "min_free_kbytes": ("auto", "0", "67584"),
    "watermark_scale_factor": ("1", "3000"),
    "watermark_boost_factor": ("0", "15000"),
    "policy": ("mine.py", "mine.py:Mine", "package.module:Mine"),
}
BAD = {
    "mobility": ("", "yes", "1"),
    "pageblock_order": ("0", "14", "-1", "9.0", "nine"),
    "max_order": ("0", "14", "\u0661"),
    "pcp": ("on", "-1", "1e3"),
    "batch": ("0", "off"),
    "shuffle": ("on", "-3", str(1 << 64)),
    "highatomic": ("maybe",),
    "fallback": ("kernel",),
    "list_order": ("random",),
    "confine": ("big", "64MiB@top", "64MiB@", "@low"),
    "tree": ("8",),
    "min_free_kbytes": ("-1", "64k"),
    "watermark_scale_factor": ("0", "3001"),
    "watermark_boost_factor": ("-1",),
    "policy": ("",),
}


def test_every_knob_is_tried():
    names = [knob.name for knob in KNOBS]
    assert set(names) == set(GOOD) == set(BAD)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, texts in GOOD.items() for t in texts])
def test_a_setting_is_read_and_written(name, text):
    tuning = Tuning.parse({name: text})
    assert getattr(tuning, name) is not None
    assert Tuning.parse(tuning.settings()) == tuning
    assert set(tuning.settings()) == {name}


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, texts in BAD.items() for t in texts])
def test_a_wrong_value_names_knob_and_choice(name, text):
    with pytest.raises(TuningError) as caught:
        Tuning.parse({name: text})
    knob = next(knob for knob in KNOBS if knob.name == name)
    assert str(caught.value) == f"{name}={text!r}: write {knob.values}"


def test_an_unknown_knob():
    with pytest.raises(TuningError, match="swappiness: no such knob; there are mobility, "):
        Tuning.parse({"swappiness": "60"})


# ---- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "settings", "words"),
    [
        ("2.6.24", {"highatomic": "on"}, "highatomic=on: Linux 2.6.24"),
        ("2.6.24", {"watermark_scale_factor": "100"}, "watermark_scale_factor: Linux 2.6.24"),
        ("2.6.24", {"watermark_boost_factor": "0"}, "watermark_boost_factor: Linux 2.6.24"),
        ("6.1", {"pageblock_order": "11"}, "pageblock_order=11: at most max_order, 10"),
        ("6.1", {"max_order": "8", "pageblock_order": "9"}, "pageblock_order=9: at most"),
        ("6.1", {"shuffle": "1", "list_order": "address"}, "shuffle and list_order exclude"),
        ("6.1", {"tree": "on", "confine": "16MiB"}, "tree=on"),
        ("6.1", {"tree": "on", "fallback": "none"}, "tree=on"),
        ("6.1", {"mobility": "off", "confine": "16MiB"}, "confine: memory is not grouped"),
        ("6.1", {"highatomic": "on", "confine": "16MiB"}, "highatomic=on: a confined"),
        ("6.1", {"min_free_kbytes": "100000"}, "min_free_kbytes=100000: the machine has"),
    ],
)
def test_settings_that_a_machine_cannot_have(kernel, settings, words):
    machine = build(kernel=kernel)
    before = machine.copy()
    with pytest.raises(TuningError) as caught:
        tuned(machine, **settings)
    assert str(caught.value).startswith(words)
    assert machine == before


def test_orders_are_set_before_slabs_and_regions():
    machine = build()
    machine.slab_start()
    with pytest.raises(TuningError, match="before the slab allocator"):
        tuned(machine, max_order="8")
    with pytest.raises(TuningError, match="before or together with confine"):
        tuned(tuned(build(), confine="16MiB"), max_order="8")


# ---- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_min_free_as_if_built_so(kernel):
    for kbytes in (512, 4096):
        wanted = build(kernel=kernel, min_free_kbytes=kbytes)
        made = tuned(build(kernel=kernel), min_free_kbytes=str(kbytes))
        assert [z.watermark for z in made.zones] == [z.watermark for z in wanted.zones]
    again = tuned(made, min_free_kbytes="auto")
    assert [z.watermark for z in again.zones] == [z.watermark for z in build(kernel=kernel).zones]


def test_scale_factor_moves_low_and_high_alone():
    plain, made = build(), tuned(build(), watermark_scale_factor="500")
    for one, other in zip(plain.zones, made.zones, strict=True):
        assert abs(one.watermark[0] - other.watermark[0]) <= 1
        assert other.watermark[2] - other.watermark[1] == max(
            other.watermark[0] // 4,
            other.managed_pages // 10000 * 500 + other.managed_pages % 10000 * 500 // 10000,
        )


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_per_cpu_lists(kernel):
    machine = build(kernel=kernel, cpus=2)
    held = [machine.alloc_pages(cpu=cpu) for cpu in (0, 1) for _ in range(20)]
    for pfn in held[::2]:
        machine.free_pages(pfn)
    made = tuned(machine, pcp="off")
    for order in range(4):
        pfn = made.alloc_pages(order, cpu=1)
        assert sum(zone.pcp_count for zone in made.zones) == 0
        made.free_pages(pfn, order)
        assert sum(zone.pcp_count for zone in made.zones) == 0
    back = tuned(made, pcp="auto").zones
    assert [z.pcp_high for z in back] == [z.pcp_high for z in build(kernel=kernel, cpus=2).zones]


# ---- orders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("order", [6, 8, 9, 10, 12])
def test_the_largest_order(kernel, order):
    made = tuned(build(kernel=kernel), max_order=str(order))
    assert made.layout.max_order == order
    assert made.nr_free_pages == build(kernel=kernel).nr_free_pages
    largest = made.snapshot().zones[-1].free[order]
    assert sum(map(len, largest)) > 0
    pfn = made.alloc_pages(order)
    made.free_pages(pfn, order)
    made.validate()


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_a_smaller_largest_order_keeps_the_order_of_addresses(kernel):
    made = tuned(build(kernel=kernel), max_order="9", pageblock_order="9")
    free = made.snapshot().zones[-1].free[9][1]
    assert free == sorted(free)
    assert len(free) * 512 == made.zones[-1].free_pages


@pytest.mark.parametrize("kernel", KERNELS)
def test_back_and_forth_is_the_same(kernel):
    machine = build(kernel=kernel)
    there = tuned(machine, max_order="7", pageblock_order="5")
    assert len(there.snapshot().zones[0].pageblocks) == 16 * len(
        machine.snapshot().zones[0].pageblocks
    )
    back = tuned(there, max_order="10", pageblock_order="9")
    if kernel != "2.6.24":  # there, pageblocks set aside are another number of frames
        assert back == machine
    back.validate()


def test_memory_in_use_stays_where_it_is():
    machine = build(cpus=2)
    small = [machine.alloc_pages(gfp=MOVABLE) for _ in range(100)]
    large = machine.alloc_pages(9)
    made = tuned(machine, max_order="6", pageblock_order="6")
    for pfn in small:
        assert "in use, in the block of order 0" in made.frame(pfn)
        assert "movable" in made.frame(pfn)
        made.free_pages(pfn)
    for part in range(8):  # a block that is too large now goes in parts
        made.free_pages(large + 64 * part, 6)
    made.drain()
    made.validate()
    assert made.nr_free_pages == build().nr_free_pages


# ---- types ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_grouping_all_types_share_their_blocks(kernel):
    made = tuned(build(kernel=kernel), mobility="off", pcp="off")
    state = made.snapshot()
    assert set("".join(zone.pageblocks for zone in state.zones)) == {"U"}
    one, other = made.alloc_pages(), made.alloc_pages(gfp=MOVABLE)
    assert one >> 9 == other >> 9
    plain = tuned(build(kernel=kernel), pcp="off")
    assert plain.alloc_pages() >> 9 != plain.alloc_pages(gfp=MOVABLE) >> 9
    again = tuned(made, mobility="on")
    assert "M" in again.snapshot().zones[-1].pageblocks


def test_nothing_is_set_aside():
    plain, made = build(), tuned(build(), highatomic="off")
    for machine in (plain, made):
        machine.alloc_pages(2, "GFP_ATOMIC")
        if machine.zones[-1].free_pages:
            for zone in machine.tables.zones:
                zone["watermark"] = zone["nr_free_pages"]  # to the reserves
            machine.alloc_pages(2, "GFP_ATOMIC")
    assert sum(zone.nr_reserved_highatomic for zone in plain.zones) > 0
    assert sum(zone.nr_reserved_highatomic for zone in made.zones) == 0
    given_back = tuned(plain, highatomic="off")
    assert "H" not in "".join(zone.pageblocks for zone in given_back.snapshot().zones)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("end", ["low", "high"])
def test_a_region_confines_what_cannot_move(kernel, end):
    made = tuned(build("128MiB", kernel=kernel), confine=f"32MiB@{end}")
    zones = [(int(z["confined_start"]), int(z["confined_end"])) for z in made.tables.zones]

    def inside(pfn):
        return any(start <= pfn < stop for start, stop in zones)

    fixed = []
    with contextlib.suppress(OutOfMemoryError):
        while True:
            gfp = "GFP_KERNEL" if len(fixed) % 3 else "GFP_KERNEL|__GFP_RECLAIMABLE"
            fixed.append(made.alloc_pages(3, gfp))
    assert all(map(inside, fixed))
    assert 20 << 20 < len(fixed) << 15 <= 36 << 20
    for pfn in fixed[::2]:
        made.free_pages(pfn, 3)
    movable = [made.alloc_pages(gfp=MOVABLE) for _ in range(18_000)]
    assert not any(map(inside, movable))
    with contextlib.suppress(OutOfMemoryError):
        while True:  # when all else is full, the region serves, too
            movable.append(made.alloc_pages(gfp=MOVABLE))
    assert any(map(inside, movable))
    made.validate()


# ---- fallbacks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_fallback(kernel):
    made = tuned(build(kernel=kernel), fallback="none")
    free = "".join(zone.pageblocks for zone in made.snapshot().zones)
    assert "U" not in free
    if kernel != "2.6.24":
        with pytest.raises(OutOfMemoryError):
            made.alloc_pages()
    made.alloc_pages(gfp=MOVABLE)
    assert sum(zone.nr_steals for zone in made.zones) == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_defrag_takes_whole_pageblocks_as_long_as_there_are_any(kernel):
    """Half of the frames is free, in single ones: a kernel mixes, defrag uses whole blocks."""
    plain = (
        tuned(build(kernel=kernel), pcp="off", watermark_boost_factor="0")
        if (kernel != "2.6.24")
        else tuned(build(kernel=kernel), pcp="off")
    )
    made = tuned(plain, fallback="defrag")
    for machine in (plain, made):
        movable = [machine.alloc_pages(gfp=MOVABLE) for _ in range(10_000)]
        for pfn in movable[::2]:
            machine.free_pages(pfn)
        for _ in range(1_000):
            machine.alloc_pages()
        steals, claims = (
            sum(getattr(zone, name) for zone in machine.zones)
            for name in ("nr_steals", "nr_claims")
        )
        machine.validate()
    assert steals == claims > 0


# ---- lists ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_lowest_frame_first(kernel):
    made = tuned(build(kernel=kernel), list_order="address", pcp="off")
    first = [made.alloc_pages(gfp=MOVABLE) for _ in range(600)]
    assert first == sorted(first)
    for pfn in first[::-7] + first[3::7]:
        made.free_pages(pfn)
    for zone in made.snapshot().zones:
        assert all(pfns == sorted(pfns) for row in zone.free for pfns in row)
    made.validate()


def test_first_in_first_out():
    order = {}
    for rule in ("lifo", "fifo"):
        made = tuned(build(), list_order=rule, pcp="off")
        held = [made.alloc_pages(gfp=MOVABLE) for _ in range(64)]
        for pfn in held[1::4]:
            made.free_pages(pfn)
        order[rule] = [made.alloc_pages(gfp=MOVABLE) for _ in held[1::4]]
        assert sorted(order[rule]) == sorted(held[1::4])
        made.validate()
    assert order["lifo"] == order["fifo"][::-1]


@pytest.mark.parametrize("kernel", KERNELS)
def test_shuffled_memory_is_the_same_memory(kernel):
    machine = build(kernel=kernel)
    one, same, other = (tuned(machine, shuffle=seed) for seed in ("1", "1", "2"))
    free = [m.snapshot().zones[-1].free[10] for m in (machine, one, same, other)]
    assert free[1] == free[2]
    assert free[1] != free[3] != free[0] != free[1]
    assert all(
        sorted(a) == sorted(b) for rows in zip(*free, strict=True) for a, b in pairwise(rows)
    )
    pfns = [one.alloc_pages(10) for _ in range(6)]
    for pfn in pfns:
        one.free_pages(pfn, 10)
    one.validate()
    assert get_placement(tuned(one, shuffle="off").tables) == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_trees_fill_up_one_after_the_other(kernel):
    made = tuned(build("256MiB", kernel=kernel, cpus=2), tree="on", pcp="off")
    kinds = [(cpu, gfp) for cpu in (0, 1) for gfp in ("GFP_KERNEL", MOVABLE)]
    held = {kind: [] for kind in kinds}
    for _ in range(500):
        for cpu, gfp in kinds:
            held[cpu, gfp].append(made.alloc_pages(gfp=gfp, cpu=cpu))
    trees = {kind: {pfn >> 12 for pfn in pfns} for kind, pfns in held.items()}
    assert all(len(found) == 1 for found in trees.values())
    assert len(set.union(*trees.values())) == 4
    for pfns in held.values():
        for pfn in pfns[::2]:
            made.free_pages(pfn)
    made.validate()
    again = made.alloc_pages(gfp=MOVABLE)
    assert again >> 12 in trees[0, MOVABLE]
    assert get_placement(made.tables) & p.TREES


# ---- copies and files ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"list_order": "address", "confine": "16MiB"},
        {"tree": "on"},
        {"shuffle": "5", "fallback": "defrag", "pcp": "off"},
    ],
)
def test_a_tuned_machine_is_copied_and_saved(settings, tmp_path):
    import physmem

    made = tuned(build(cpus=2), **settings)
    held = [made.alloc_pages(n % 3, MOVABLE, cpu=n % 2) for n in range(300)]
    for n, pfn in enumerate(held):
        if n % 4:
            made.free_pages(pfn, n % 3)
    made.save(tmp_path / "machine")
    for other in (made.copy(), physmem.open(tmp_path / "machine")):
        assert other == made
        assert get_placement(other.tables) == get_placement(made.tables)
        one = made.copy()
        for step in range(200):
            assert one.alloc_pages(step % 4, cpu=step % 2) == other.alloc_pages(
                step % 4, cpu=step % 2
            )
        other.validate()
    if "confine" not in settings:
        tuned(made, max_order="8").validate()
