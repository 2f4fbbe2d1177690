# SPDX-License-Identifier: GPL-2.0-or-later
"""Start-ups from real kernels' logs, figure by figure, and from nothing but the machine."""

import lzma
import re
from dataclasses import replace
from pathlib import Path

import pytest

from physmem.boot.compare_log import compare_log
from physmem.boot.from_log import boot_from_log, hardware_of
from physmem.boot.self_made import boot_of_hardware
from physmem.boot.start_kernel import start_kernel
from physmem.firmware.bootlog import parse_boot_log, read_boot_log
from physmem.lib.errors import BadInputError

LOGS = Path(__file__).parents[1] / "logs"
NAMES = sorted(path.name for path in LOGS.iterdir() if path.is_dir())
PCS = [name for name in NAMES if "arm64" not in name]
SELF_TUNING = {"linux-6.12-x86_64-512M"}


def log_of(name):
    return read_boot_log(LOGS / name / "dmesg.txt.xz")


def text_of(name, file="dmesg.txt.xz"):
    return lzma.decompress((LOGS / name / file).read_bytes()).decode()


def zoneinfo_of(name):
    return text_of(name, "zoneinfo.xz")


def differing(comparison):
    return [(figure.name, figure.ours, figure.theirs) for figure in comparison.differences]


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_of_a_log_is_equal(name):
    log = log_of(name)
    comparison = compare_log(boot_from_log(log), log, zoneinfo_of(name))
    assert differing(comparison) == []
    assert comparison.equal == comparison.compared >= 60
    # figures that running programs change are named, not silently passed over
    left_out = {figure.name.split(" cpu")[0] for figure in comparison.not_compared}
    if name in SELF_TUNING:
        assert left_out == {"Memory: available", "node 0 zone DMA", "node 0 zone DMA32"}
    else:
        assert not left_out


@pytest.mark.parametrize("name", NAMES)
def test_every_call_of_the_boot_allocator_is_foretold(name):
    prediction = boot_from_log(log_of(name)).prediction
    assert prediction.mismatches == ()
    assert prediction.calls == prediction.equal >= 35
    assert prediction.dumps == prediction.dumps_equal >= 1
    assert prediction.unexplained == 0


@pytest.mark.parametrize("name", NAMES)
def test_handed_over_frames_are_what_the_zones_manage(name):
    booted = boot_from_log(log_of(name))
    given = booted.hand_over.nr_pages + booted.highmem.nr_pages + booted.cma.nr_pages
    given += sum(part.nr_pages for part in booted.deferred.values())
    given += sum(late.nr_pages for late in booted.late)
    assert given == sum(zone.managed_pages for zone in booted.zones) == booted.totalram_pages
    frames = {}
    for part in (booted.hand_over, booted.highmem, *booted.deferred.values(), booted.cma):
        for pfn, order in zip(part.pfn.tolist(), part.order.tolist(), strict=True):
            assert pfn % (1 << order) == 0
            frames[pfn] = 1 << order
    ends = [pfn + size for pfn, size in sorted(frames.items())]
    assert all(end <= pfn for end, pfn in zip(ends, sorted(frames)[1:], strict=False))


@pytest.mark.parametrize("name", PCS)
def test_the_calls_follow_from_the_machine_alone(name):
    """The generated calls leave memblock as the log does, byte for byte."""
    log = log_of(name)
    told = boot_from_log(log)
    made = start_kernel(boot_of_hardware(hardware_of(log), kernel=told.kernel, cmdline=log.cmdline))
    ours, theirs = (
        [(region.base, region.end) for region in booted.memblock.reserved]
        for booted in (made, told)
    )
    assert ours == theirs
    assert [zone.managed_pages for zone in made.zones] == [
        zone.managed_pages for zone in told.zones
    ]
    assert made.zones == told.zones


@pytest.mark.parametrize("name", NAMES)
def test_owners_cover_what_is_reserved(name):
    booted = boot_from_log(log_of(name))
    assert sum(held.end - held.start for held in booted.reserved) == sum(
        region.size for region in booted.memblock.reserved
    )
    owners = {held.owner for held in booted.reserved}
    assert {"kernel image", "mem_map", "per-CPU areas"} <= owners


@pytest.mark.parametrize("cut", [12, 60, 211, 422])
def test_a_log_that_lost_its_beginning_is_booted_from_its_dump(cut):
    name = "linux-6.1-arm64-512M"
    log = parse_boot_log("\n".join(text_of(name).splitlines()[cut:]))
    booted = boot_from_log(log)
    assert differing(compare_log(booted, log, zoneinfo_of(name))) == []
    assert any("first lines are lost" in text for text in booted.assumptions)


@pytest.mark.parametrize("cut", [12, 60])
def test_the_same_on_a_pc(cut):
    name = "linux-6.1-x86_64-512M"
    log = parse_boot_log("\n".join(text_of(name).splitlines()[cut:]))
    assert differing(compare_log(boot_from_log(log), log, zoneinfo_of(name))) == []


def test_no_cut_of_a_log_ends_in_anything_but_figures_or_a_clear_error():
    lines = text_of("linux-6.1-i386-highmem").splitlines()
    for cut in range(0, len(lines), 23):
        for part in (lines[cut:], lines[:cut]):
            try:
                log = parse_boot_log("\n".join(part))
                compare_log(boot_from_log(log), log)
            except BadInputError as error:
                assert "dmesg > FILE" in str(error)  # noqa: PT017 - both ends are right


def without_debug(text):
    return "\n".join(
        line
        for line in text.splitlines()
        if not re.search(r"\] (?:memblock_|MEMBLOCK| (?:memory|reserved)[.\[ ])", line)
    )


@pytest.mark.parametrize("name", PCS)
def test_without_memblock_debug_the_calls_are_generated_and_it_says_so(name):
    log = parse_boot_log(without_debug(text_of(name)))
    booted = boot_from_log(log)
    comparison = compare_log(booted, log, zoneinfo_of(name))
    assert not log.debug
    assert booted.prediction is None
    assert any("without memblock=debug" in text for text in booted.assumptions)
    wrong = [figure for figure in comparison.differences if "6.12" not in name]
    assert wrong == []


def test_another_result_in_the_log_is_a_mismatch_and_the_rest_still_fits():
    text = text_of("linux-6.1-x86_64-512M")
    changed = text.replace(
        "[0x000000001ffd4f00-0x000000001ffd4fdf]", "[0x000000001ff00000-0x000000001ff000df]"
    )
    log = parse_boot_log(changed)
    prediction = boot_from_log(log).prediction
    first = prediction.mismatches[0]
    assert (first.ours, first.theirs) == (0x1FFD4F00, 0x1FF00000)
    assert 1 <= len(prediction.mismatches) < prediction.calls


def test_huge_pages_switched_off_compute_the_marks_once_more():
    log = log_of("linux-6.1-x86_64-2nodes")
    with_thp = boot_from_log(log)
    never = boot_from_log(replace(log, cmdline=log.cmdline + " transparent_hugepage=never"))
    assert (with_thp.min_free_kbytes, with_thp.thp) == (49080, True)
    # the square root of what the first marks leave: less than the 3975 of the first computation
    assert (never.min_free_kbytes, never.thp) == (3963, False)


def test_a_figure_that_differs_is_told():
    name = "linux-6.1-x86_64-512M"
    log = log_of(name)
    text = zoneinfo_of(name).replace("managed  116479", "managed  116480")
    comparison = compare_log(boot_from_log(log), log, text)
    assert differing(comparison) == [("node 0 zone DMA32 managed", 116479, 116480)]
    form = comparison.to_dict()
    assert form["compared"] == form["equal"] + 1
    assert form["differences"] == [
        {
            "name": "node 0 zone DMA32 managed",
            "ours": 116479,
            "theirs": 116480,
            "equal": False,
        }
    ]


def test_a_zoneinfo_that_is_none_is_refused():
    log = log_of("linux-6.1-x86_64-512M")
    with pytest.raises(BadInputError, match="no zone in it"):
        compare_log(boot_from_log(log), log, "hello")
