# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading boot logs: forms, damage, and what they tell."""

import lzma
import re
from pathlib import Path

import pytest

from physmem.firmware.bootlog import EXAMPLE, parse_boot_log, read_boot_log
from physmem.firmware.bootlog_events import (
    AllocCall,
    CmaReserved,
    Freed,
    MemblockCall,
    MemblockDump,
    MemblockOp,
    NodeData,
    RamdiskMoved,
    Step,
)
from physmem.firmware.bootlog_lines import log_lines
from physmem.lib.errors import BadInputError

LOGS = Path(__file__).parents[1] / "logs"


def text_of(name):
    return lzma.decompress((LOGS / name / "dmesg.txt.xz").read_bytes()).decode()


@pytest.mark.parametrize(
    ("name", "arch", "version", "calls"),
    [
        ("linux-6.1-x86_64-512M", "x86_64", (6, 1), 50),
        ("linux-6.1-x86_64-2nodes", "x86_64", (6, 1), 53),
        ("linux-6.1-i386-highmem", "i386", (6, 1), 35),
        ("linux-6.1-arm64-512M", "arm64", (6, 1), 294),
        ("linux-6.12-x86_64-512M", "x86_64", (6, 12), 47),
    ],
)
def test_a_log_tells_its_kernel_and_its_allocations(name, arch, version, calls):
    log = read_boot_log(LOGS / name / "dmesg.txt.xz")
    assert (log.arch, log.version, log.debug, log.headless) == (arch, version, True, False)
    found = [event for event in log.events if isinstance(event, AllocCall)]
    assert len(found) == calls
    assert all(event.end - event.start == event.size for event in found)


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "[    0.000000] ",
        "[    0.000000][    T0] ",
        "<6>[    0.000000] ",
        "kern  :info  : [    0.000000] ",
        "Nov 23 00:12:01 host kernel: ",
        "Nov 23 00:12:01 host kernel: [    0.000000] ",
    ],
)
def test_prefixes_do_not_matter(prefix):
    plain = re.sub(r"^\[ *\d+\.\d+\] ", "", text_of("linux-6.1-x86_64-512M"), flags=re.MULTILINE)
    changed = "\n".join(prefix + line for line in plain.splitlines())
    ours, theirs = parse_boot_log(changed), parse_boot_log(text_of("linux-6.1-x86_64-512M"))
    assert ours.figures == theirs.figures
    assert ours.e820 == theirs.e820
    assert [type(event) for event in ours.events] == [type(event) for event in theirs.events]


def test_lines_keep_their_numbers():
    lines = log_lines("\n[    0.000100] Zone ranges:\n\n   \n[    0.100000] x\n")
    assert [(line.number, line.text) for line in lines] == [(2, "Zone ranges:"), (5, "x")]


def test_a_node_s_descriptor_is_an_allocation_on_its_node():
    log = read_boot_log(LOGS / "linux-6.1-x86_64-2nodes" / "dmesg.txt.xz")
    asked = [event for event in log.events if isinstance(event, AllocCall) and event.inferred]
    assert [(event.nid, event.size, event.align) for event in asked] == [
        (0, 0x2B000, 64),
        (1, 0x2B000, 64),
    ]
    assert [event.nid for event in log.events if isinstance(event, NodeData)] == [0, 1]
    assert [(entry.domain, hex(entry.base), hex(entry.end)) for entry in log.srat] == [
        (0, "0x0", "0xa0000"),
        (0, "0x100000", "0x28000000"),
        (1, "0x28000000", "0x40000000"),
    ]


def test_a_cma_area_is_an_allocation():
    log = read_boot_log(LOGS / "linux-6.1-arm64-512M" / "dmesg.txt.xz")
    (area,) = [event for event in log.events if isinstance(event, CmaReserved)]
    (asked,) = [e for e in log.events if isinstance(e, AllocCall) and e.start == area.base]
    assert (asked.size, asked.inferred) == (64 << 20, True)


def test_a_removal_to_the_end_of_addresses_wraps_in_print():
    log = read_boot_log(LOGS / "linux-6.1-arm64-512M" / "dmesg.txt.xz")
    removed = [
        event
        for event in log.events
        if isinstance(event, MemblockCall) and event.op is MemblockOp.REMOVE
    ]
    assert [event.end for event in removed] == [1 << 64, 1 << 64]


def test_the_initial_ram_disk_may_move():
    log = read_boot_log(LOGS / "linux-6.1-i386-highmem" / "dmesg.txt.xz")
    (moved,) = [event for event in log.events if isinstance(event, RamdiskMoved)]
    assert log.initrd == (0x4AE4D000, 0x4AFD0000)
    assert moved.start == 0x36A7B000


def test_freed_memory_and_steps_come_in_order():
    log = read_boot_log(LOGS / "linux-6.12-x86_64-512M" / "dmesg.txt.xz")
    what = [event.what for event in log.events if isinstance(event, Freed)]
    assert what[:2] == ["SMP alternatives", "initrd"]
    steps = [event.step for event in log.events if hasattr(event, "step")]
    assert steps.index(Step.HANDOVER) < steps.index(Step.MEMORY_LINE)


def test_dumps_tell_nodes_and_flags():
    log = read_boot_log(LOGS / "linux-6.1-x86_64-2nodes" / "dmesg.txt.xz")
    first, second = [event for event in log.events if isinstance(event, MemblockDump)]
    assert [region.nid for region in first.memory] == [None, None]
    assert [region.nid for region in second.memory] == [0, 0, 1]
    assert len(second.reserved) == 6


BAD = {
    "empty": ("", "is empty"),
    "blank": ("\n \n", "is empty"),
    "prose": ("It was a dark and stormy night.\n", "line 1: 'It was a dark"),
    "cut-tail": (EXAMPLE.rsplit("\n", 2)[0], "before the page allocator takes over"),
    "no-memory": ("[ 0.0] Linux version 6.1.0\n[ 0.0] Memory: 1K/2K available\n", "what memory"),
    "damaged-call": (EXAMPLE.replace("-0x000000001ffd9fff] memb", "-0x00000000"), "line 5"),
    "damaged-e820": (EXAMPLE.replace("] usable", "] usab"), "is damaged"),
    "backwards": (EXAMPLE.replace("[0x000000001ffd9fc0", "[0x000000002ffd9fc0"), "line 5"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_logs_get_one_clear_message(name):
    text, part = BAD[name]
    with pytest.raises(BadInputError, match=re.escape(part)) as caught:
        parse_boot_log(text, "some.log")
    message = str(caught.value)
    assert message.startswith("some.log")
    assert "\n" not in message
    assert len(message) < 320


def test_a_log_without_its_beginning_says_what_to_do():
    lines = text_of("linux-6.1-x86_64-512M").splitlines()
    with pytest.raises(BadInputError, match="log_buf_len"):
        parse_boot_log("\n".join(lines[100:]))


@pytest.mark.parametrize("content", [b"\x00\x01\x02" * 2000, b"\xfd7zXZ\x00broken"])
def test_files_that_are_no_text(tmp_path, content):
    path = tmp_path / "dmesg.txt"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=re.escape(str(path))):
        read_boot_log(path)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(BadInputError, match="No such file"):
        read_boot_log(tmp_path / "nothing")
    with pytest.raises(BadInputError, match="is a folder"):
        read_boot_log(tmp_path)


def test_the_version_beside_a_headless_log_counts(tmp_path):
    lines = text_of("linux-6.12-x86_64-512M").splitlines()
    (tmp_path / "dmesg.txt").write_text("\n".join(lines[2:]))
    (tmp_path / "version").write_text("Linux version 6.12.107+deb12-cloud-amd64 (somebody)\n")
    log = read_boot_log(tmp_path / "dmesg.txt")
    assert (log.headless, log.version) == (True, (6, 12))
