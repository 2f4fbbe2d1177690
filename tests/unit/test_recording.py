# SPDX-License-Identifier: GPL-2.0-or-later
"""Importing recordings, whole and damaged."""

import gc
import json
import lzma

import msgspec
import pytest
from tests.trace_fixtures import (
    EVENTS,
    SPANNED,
    START,
    STATE0_FREE,
    STATE1_FREE,
    TRACE,
    ZONEINFO,
    alloc,
    free,
    make_recording,
    make_state,
)

from physmem.lib.errors import BadInputError, BadStateError, BadTraceError
from physmem.mm.state import encode_state
from physmem.trace.capture import read_capture
from physmem.trace.check import check_state, pcp_list_order
from physmem.trace.machine_info import (
    cpu_node_of,
    machine_of,
    node_data_of,
    page_size_of,
    zones_of,
)
from physmem.trace.recording import ImportReport, import_recording, profile_of

PCP = [START + 20, START + 21]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.physmem"


def state_json(**changes):
    state = make_state(STATE0_FREE, PCP)
    for name, value in changes.items():
        setattr(state.zones[0], name, value)
    return encode_state(state)


def test_a_whole_recording(tmp_path, out):
    done = []
    report = import_recording(
        make_recording(tmp_path / "r"), out, progress=lambda *at: done.append(at)
    )
    assert report.events == {"mm_page_alloc": 5, "mm_page_free": 3, "tracing_mark_write": 2}
    assert report.unknown == {"kmalloc_node": 1}
    assert (report.lines, report.failed, report.unknown_frees, report.lost) == (13, 1, 1, 0)
    assert (report.has_state0, report.has_state1, report.notes) == (True, True, [])
    assert (report.profile, report.trace_bytes) == ("6.1", len(TRACE))
    assert report.capture_bytes == out.stat().st_size
    assert report.lines_per_second > 0
    assert done == [(len(TRACE), len(TRACE))]
    assert msgspec.json.decode(report.to_json(), type=ImportReport) == report

    capture = read_capture(out)
    info, machine = capture.info, capture.info.machine
    assert (info.state0_row, info.state1_row, info.state0_line) == (6, 9, 10)
    assert info.movable0 == [(START, 1), (START + 4, 1), (START + 6, 2)]
    assert capture.events.line[info.state0_row] == 10
    assert capture.events.line[info.state1_row] == 13
    assert capture.events.markers == ["SNAP0", "SNAP1"]
    assert capture.state0 is not None
    assert encode_state(capture.state0) == state_json()
    assert info.counts == report.events
    assert (machine.arch, machine.cmdline, machine.nr_cpus) == (
        "x86_64",
        "console=ttyS0 panic=-1",
        1,
    )
    assert [(zone.name, zone.index, zone.start, zone.end) for zone in machine.zones] == [
        ("Normal", 0, START, START + SPANNED),
        ("Movable", 1, 0, 0),
    ]
    assert machine.thp
    names = [file.name for file in info.provenance.files]
    assert names[:3] == ["manifest.json", "state0.json", "state1.json"]
    assert all(len(file.sha256) == 64 for file in info.provenance.files)


def test_compressed_files(tmp_path, out):
    there = make_recording(tmp_path / "r")
    for name in ("trace.txt", "state0.json", "state1.json"):
        (there / f"{name}.xz").write_bytes(lzma.compress((there / name).read_bytes()))
        (there / name).unlink()
    assert import_recording(there, out).lines == 13
    (there / "state0.json.xz").write_bytes((there / "state0.json.xz").read_bytes()[:50])
    with pytest.raises(BadInputError, match=r"state0.json.xz: truncated or damaged"):
        import_recording(there, out)


def test_only_a_trace(tmp_path, out):
    there = tmp_path / "r"
    there.mkdir()
    (there / "trace").write_text(alloc(START) + free(START))
    report = import_recording(there, out)
    assert (report.has_state0, report.has_state1) == (False, False)
    assert report.notes == ["kernel of unknown version: read with the rules of Linux 6.1"]
    capture = read_capture(out)
    assert (capture.state0, capture.info.state0_row, capture.info.movable0) == (None, None, [])


def test_lost_events(tmp_path, out):
    stats = "entries: 9\noverrun: 3\ncommit overrun: 0\ndropped events: 4\n"
    there = make_recording(tmp_path / "r", trace_stats=stats)
    assert import_recording(there, out).lost == 7


# ---- what is missing ----------------------------------------------------------------------------


def test_missing_files(tmp_path, out):
    with pytest.raises(BadInputError, match="absent: no such directory"):
        import_recording(tmp_path / "absent", out)
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="not a directory"):
        import_recording(tmp_path / "file", out)
    with pytest.raises(BadInputError, match=r"no trace.txt"):
        import_recording(make_recording(tmp_path / "r", trace_txt=None), out)
    with pytest.raises(BadStateError, match="no state0_before_line"):
        import_recording(make_recording(tmp_path / "s", manifest_json=None), out)
    with pytest.raises(BadInputError, match=r"manifest.json: damaged"):
        import_recording(make_recording(tmp_path / "t", manifest_json="{"), out)
    assert not out.exists()


# ---- damaged traces -----------------------------------------------------------------------------


def test_a_trace_that_ends_early(tmp_path, out):
    lines = TRACE.splitlines(keepends=True)
    there = make_recording(tmp_path / "r", trace_txt="".join(lines[:7]))
    with pytest.raises(BadTraceError, match=r"0 events kmalloc_node, but .* --allow-truncated"):
        import_recording(there, out)
    report = import_recording(there, out, allow_truncated=True)
    assert report.truncated
    assert not report.has_state0
    assert report.notes[0] == "state0 left out: the trace ends before its line"
    no_counts = {"trace": {}}
    there = make_recording(tmp_path / "r", trace_txt="".join(lines[:7]), manifest=no_counts)
    with pytest.raises(BadStateError, match=r"state0 belongs before line 10 .* only 7 lines"):
        import_recording(there, out)
    there = make_recording(tmp_path / "r", trace_txt="".join(lines[:11]), manifest=no_counts)
    with pytest.raises(BadStateError, match="state1 belongs before line 13"):
        import_recording(there, out)
    there = make_recording(tmp_path / "r", trace_txt=TRACE[:-5])
    with pytest.raises(BadTraceError, match=r"trace.txt:13: the text ends within a line"):
        import_recording(there, out)


def test_a_cpu_that_the_machine_lacks(tmp_path, out):
    text = TRACE.replace("[000]", "[002]", 2)
    with pytest.raises(BadTraceError, match=r"line 3 of the trace is of CPU 2, but .* 1 CPUs"):
        import_recording(make_recording(tmp_path / "r", trace_txt=text), out)
    there = tmp_path / "s"
    there.mkdir()
    (there / "trace").write_text(text)
    import_recording(there, out)
    assert read_capture(out).info.machine.cpu_node == [0, 0, 0]


def test_event_counts_of_the_manifest(tmp_path, out):
    wrong = {"trace": {"events": {**EVENTS, "mm_page_free": 4}}}
    there = make_recording(tmp_path / "r", manifest=wrong)
    with pytest.raises(BadTraceError, match=r"3 events mm_page_free, but .* counts 4"):
        import_recording(there, out)
    there = make_recording(tmp_path / "r", trace_txt=TRACE.replace("kmalloc_node", "kmallok_node"))
    with pytest.raises(BadTraceError, match=r"0 events kmalloc_node, but .* counts 1"):
        import_recording(there, out)


# ---- damaged states -----------------------------------------------------------------------------


def swapped(order, migratetype, pfns):
    lists = [list(map(list, types)) for types in make_state(STATE0_FREE).zones[0].free]
    lists[order][migratetype] = pfns
    return {"free": lists, "nr_free": [sum(map(len, types)) for types in lists]}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (swapped(8, 1, [START - 256]), r"order 8 Movable: frame 0xf00 lies outside of the zone"),
        (swapped(9, 1, [START + SPANNED]), "order 9 Movable: frame 0x1400 lies outside"),
        (swapped(8, 1, [START + 257]), "order 8 Movable: frame 0x1101 is no multiple of 256"),
        (
            swapped(0, 2, [START + 200]),
            r"order 7 Unmovable: frame 0x10c8 is on free list order 0 Reclaimable too",
        ),
        (swapped(0, 2, [START + 20]), r"frame 0x1014 is on (free|per-CPU) list .* too"),
        (swapped(9, 1, [START + 512, START + 512]), "frame 0x1200 is on free list order 9"),
        ({"nr_free": [0] * 11}, "nr_free of order 7 is 0, but its lists hold 1"),
        ({"pageblocks": "MMM"}, "3 pageblocks, but its span has 2"),
        ({"pageblocks": "MZ"}, "unknown letters Z"),
        ({"managed": SPANNED + 1}, "cannot be"),
        ({"free": [[[]] * 4] * 10 + [[[]] * 5]}, "different numbers of migratetypes"),
    ],
)
def test_states_that_contradict_themselves(tmp_path, out, changes, reason):
    there = make_recording(tmp_path / "r", state0_json=state_json(**changes))
    with pytest.raises(BadStateError, match=reason) as caught:
        import_recording(there, out)
    text = str(caught.value)
    assert "node 0, zone Normal" in text
    assert "\n" not in text
    assert not out.exists()


def test_wrong_pcp_count(tmp_path, out):
    state = make_state(STATE0_FREE, PCP)
    state.zones[0].pcp[0].count = 3
    with pytest.raises(BadStateError, match="CPU 0 hold 2 frames, their count is 3"):
        check_state(state, "state0")
    there = make_recording(tmp_path / "r", state0_json=encode_state(state)[:-20])
    with pytest.raises(BadStateError, match="not a recorded memory state"):
        import_recording(there, out)
    there = make_recording(tmp_path / "r", state0_json=b'{"zones":[]}')
    with pytest.raises(BadStateError, match="no zone"):
        import_recording(there, out)


def test_states_of_another_boot(tmp_path, out):
    wrong = encode_state(make_state([*STATE0_FREE, (0, 1, START)], PCP))
    there = make_recording(tmp_path / "r", state0_json=wrong)
    with pytest.raises(
        BadStateError, match=r"state0: .* order 0 Movable: frame 0x1000 is free, but the trace"
    ):
        import_recording(there, out)
    swapped_states = {
        "state0_json": encode_state(make_state(STATE1_FREE, PCP)),
        "state1_json": encode_state(make_state(STATE0_FREE, PCP)),
    }
    there = make_recording(tmp_path / "r", **swapped_states)
    with pytest.raises(BadStateError, match=r"state1: .* order 7 Unmovable: frame 0x1080 is free"):
        import_recording(there, out)


def test_states_of_another_machine(tmp_path, out):
    other = make_state(STATE1_FREE)
    other.zones[0].name = "DMA"
    there = make_recording(tmp_path / "r", state1_json=encode_state(other))
    with pytest.raises(BadStateError, match="zone DMA of node 0 differs from state0"):
        import_recording(there, out)
    trace = TRACE + free(0x90000, 3.0)
    there = make_recording(tmp_path / "r", trace_txt=trace, manifest={"trace": {}})
    with pytest.raises(BadStateError, match="frame 0x90000 of trace line 14 lies in no zone"):
        import_recording(there, out)


# ---- output -------------------------------------------------------------------------------------


def test_output_that_cannot_be_written(tmp_path):
    there = make_recording(tmp_path / "r")
    with pytest.raises(OSError, match="No space left on device"):
        import_recording(there, "/dev/full")
    with pytest.raises(FileNotFoundError):
        import_recording(there, tmp_path / "absent" / "a")
    gc.collect()


def test_an_interrupt_leaves_nothing_behind(tmp_path, out):
    there = make_recording(tmp_path / "r")

    def interrupt(_done, _total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_recording(there, out, progress=interrupt)
    gc.collect()
    assert list(tmp_path.iterdir()) == [there]
    with pytest.raises(BadTraceError):
        import_recording(make_recording(there, trace_txt="garbage\n" + TRACE), out)
    assert list(tmp_path.iterdir()) == [there]


# ---- the machine --------------------------------------------------------------------------------

DMESG = """\
[    0.000000] SRAT: PXM 0 -> APIC 0x00 -> Node 0
[    0.000000] SRAT: PXM 1 -> APIC 0x01 -> Node 1
[    0.000000] NODE_DATA(0) allocated [mem 0x27fd5000-0x27ffffff]
[    0.000000] NODE_DATA(1) allocated [mem 0x3fe26000-0x3fe50fff]
[    0.641611] .... node  #1, CPUs:      #1
"""


def test_nodes_of_the_boot_log():
    assert node_data_of(DMESG) == [(0x27FD5000, 0x27FFFFFF), (0x3FE26000, 0x3FE50FFF)]
    assert node_data_of("NUMA: NODE_DATA [mem 0x5feee380-0x5fef0fff]") == [(0x5FEEE380, 0x5FEF0FFF)]
    assert node_data_of(DMESG.splitlines()[3]) == []
    assert cpu_node_of(DMESG, 2) == [0, 1]
    assert cpu_node_of(".... node  #0, CPUs:      #1 #2\n.... node  #1, CPUs:   #3", 4) == [
        0,
        0,
        0,
        1,
    ]
    assert cpu_node_of("", 2) == [0, 0]
    machine = machine_of({"dmesg": DMESG}, {"cpus": 2, "nodes": 2}, None)
    assert machine.node_distance == [[10, 20], [20, 10]]
    assert machine.cpu_node == [0, 1]
    assert machine.zones == []


def test_zones_and_page_size():
    zones = zones_of(ZONEINFO)
    assert page_size_of("", zones) == 4096
    assert page_size_of(f"MemTotal: {1016 * 4} kB", zones) == 4096
    assert page_size_of(f"MemTotal: {1016 * 64 - 100} kB", zones) == 65536
    machine = machine_of({}, {}, make_state(STATE0_FREE))
    assert [(zone.name, zone.managed) for zone in machine.zones] == [("Normal", SPANNED - 8)]


@pytest.mark.parametrize(
    ("version", "profile"),
    [
        ("6.1.170 (Debian 6.1.0-47-686)", ("6.1", True)),
        ("Linux version 6.12.107+deb12-cloud-amd64 (gcc)", ("6.12", True)),
        ("5.10.0-9", ("6.1", False)),
        ("6.6.1", ("6.1", False)),
        ("6.18.2", ("6.12", False)),
        ("", ("6.1", False)),
        ("nonsense", ("6.1", False)),
    ],
)
def test_profiles(version, profile):
    assert profile_of(version) == profile


def test_a_kernel_without_a_profile_is_noted(tmp_path, out):
    there = make_recording(tmp_path / "r", manifest={"kernel": "6.8.0-31-generic"})
    report = import_recording(there, out)
    assert report.profile == "6.12"
    assert report.notes == ["kernel 6.8.0-31-generic: read with the rules of Linux 6.12"]
    assert json.loads(report.to_json())["profile"] == "6.12"


def test_orders_of_per_cpu_lists():
    assert [pcp_list_order(i, 9) for i in (0, 2, 3, 11, 12, 13)] == [0, 0, 1, 3, 9, 9]
