# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading ftrace text."""

import gzip
import lzma

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.trace_fixtures import ONE_OF_EACH, TRACE, alloc, free, line, rows_of, slow_row

from physmem.lib.errors import BadTraceError
from physmem.trace import ftrace
from physmem.trace.events import NO_PREEMPT_COUNT, Events, Kind
from physmem.trace.ftrace import TraceReader, read_events

pytestmark = pytest.mark.pure

HEADER = "# tracer: nop\n#\n# entries-in-buffer/entries-written: {0}/{0}   #P:1\n#\n"


@pytest.fixture
def trace(tmp_path):
    def write(text, name="trace.txt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize("event", ONE_OF_EACH)
def test_fields_of_each_event(trace, event):
    text = line(event, 7.000001, flags="d..2.", pid=4321, cpu=3) + free(1, 8.0, cpu=3)
    events = read_events(trace(text))
    first = text.splitlines()[0]
    assert rows_of(events)[0] == slow_row(first)
    assert events.line.tolist() == [1, 2]


def test_values_that_matter(trace):
    events = read_events(trace("".join(line(event) for event in ONE_OF_EACH)))
    assert events.kind.tolist() == [int(kind) for kind in Kind]
    by_kind = {kind: i for i, kind in enumerate(Kind)}
    extfrag = by_kind[Kind.EXTFRAG]
    assert (events.order[extfrag], events.arg0[extfrag]) == (3, 10)
    assert events.arg1[extfrag] == 1 | 1 << 8
    assert events.arg0[by_kind[Kind.BULK]] == -1
    assert events.pfn[by_kind[Kind.DRAIN_ZONE_PAGES]] == 0xFFFF88803FE26600 - (1 << 64)
    assert events.pfn[by_kind[Kind.ISOLATE_FREE]] == -1
    assert events.markers == ["SNAP 0"]
    assert events.counts()["bulk_ret"] == 1


@pytest.mark.parametrize(
    ("flags", "context", "preempt"),
    [
        (".....", 0, 0),
        ("d..4.", 1, 4),
        ("D.h1.", 1 | 4, 1),
        ("bN.2.", 1 | 2, 2),
        (".ns..", 2 | 8, 0),
        ("d.H3.", 1 | 4 | 8, 3),
        ("d.Zf.", 1 | 4, 15),
        ("d.z1", 1 | 4, 1),
        ("X..1.", 0, 1),
        ("....11", 0, 0),
    ],
)
def test_flags(trace, flags, context, preempt):
    events = read_events(trace(free(1, flags=flags) + free(2, flags="...1.")))
    assert (events.context[0], events.preempt[0]) == (context, preempt)


def test_a_kernel_that_does_not_count_preemption(trace):
    events = read_events(trace(free(1) + free(2)))
    assert events.preempt.tolist() == [NO_PREEMPT_COUNT] * 2


@pytest.mark.parametrize(
    "comm",
    ["a b", "x:y", "a[000] b", "(sd-pam)", "a-1 [000] b", "-", "kworker/0:1-ev", "ü", "a=b", "#"],
)
def test_task_names(trace, comm):
    width = 16 - len(comm.encode()) + len(comm)
    text = free(1, comm=f"{comm:>{width}}") + free(2, comm="init")
    events = read_events(trace(text))
    assert events.comms == [comm, "init"]
    assert events.comm.tolist() == [0, 1]


def test_a_task_name_that_is_no_text(trace):
    text = free(1).encode().replace(b"init", b"in\xff\xfe")
    assert read_events(trace(text)).comms == ["in\\xff\\xfe"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("cpus=2\n         python3-18992 [001]  ", "        page=0x7 pfn=0x23eb3a order=0\n"),
        ("            perf 18992 [001]  ", " page=0x7 pfn=0x23eb3a order=0\n"),
        ("         python3-18992   [001] d..1  ", " page=(null) pfn=2353978 order=0\n"),
        ("         python3-18992   ( 1892) [001] d..1.  ", " page=1 pfn=0x23eb3a order=0\n"),
        ("python3-18992 [001] ", " page=1 pfn=0x23eb3a order=0 more=1\n"),
        ("         python3-18992 [001] d..1.  ", " page=1 pfn=0x23eb3a order=0\r\n"),
    ],
)
def test_dialects(trace, before, after):
    group = "            kmem:" if "perf" in before else " "
    text = f"{before}1471.683142:{group}mm_page_free:{after}"
    events = read_events(trace(text))
    assert (events.pfn[0], events.pid[0], events.cpu[0]) == (0x23EB3A, 18992, 1)
    assert events.ts[0] == 1471_683142_000
    assert events.comms[0] in {"python3", "perf"}


def test_failed_allocations_have_no_frame(trace):
    text = "".join(
        line(f"mm_page_alloc: page=(null) pfn={pfn} order=9 migratetype=1 gfp_flags=none")
        for pfn in ("0x0", "0xffffffffffffffff", "18446744073709551615", "0xffffffff", "0")
    )
    assert read_events(trace(text)).pfn.tolist() == [-1] * 5


def test_what_is_not_read_is_counted_or_passed(trace):
    text = (
        "#\n\nCPU:1 [LOST 12 EVENTS]\nCPU:0 [LOST 3 EVENTS]\n##### CPU 1 buffer started ####\n"
        + line("kmalloc_node: call_site=f+0x1/0x2 ptr=1")
        + line("kmalloc_node: call_site=f+0x1/0x2 ptr=1")
        + line("<stack trace>")
        + " => __alloc_pages\n => f\n"
        + line("func_a <-func_b")
        + line("tracing_mark_write: first")
        + "second\n  third\n"
        + free(1)
    )
    reader = TraceReader(trace(text))
    lines = [int(rows["line"][i]) for rows in reader for i in range(len(rows))]
    assert lines == [12, 15]
    assert reader.unknown == {"kmalloc_node": 2, "<stack": 1, "func_a": 1}
    assert (reader.lost, reader.lines, reader.markers) == (15, 15, ["first"])
    assert reader.event_counts() == {"mm_page_free": 1, "tracing_mark_write": 1}


def test_older_zone_locked_without_percpu_refill(trace):
    event = "mm_page_alloc_zone_locked: page=1 pfn={} order={} migratetype=1"
    text = line(event.format(5, 0)) + line(event.format(8, 3))
    assert read_events(trace(text)).arg0.tolist() == [1, 0]


@pytest.mark.parametrize("suffix", ["xz", "gz", "zst"])
def test_compressed(trace, suffix):
    raw = TRACE.encode()
    packed = {
        "xz": lambda: lzma.compress(raw),
        "gz": lambda: gzip.compress(raw),
        "zst": lambda: pa.compress(raw, codec="zstd", asbytes=True),
    }[suffix]()
    plain = read_events(trace(raw))
    assert rows_of(read_events(trace(packed, f"t.{suffix}"))) == rows_of(plain)
    assert rows_of(read_events(trace(packed, "misnamed.txt"))) == rows_of(plain)


@pytest.mark.parametrize("suffix", ["xz", "gz", "zst"])
def test_truncated_compressed_text(trace, suffix):
    raw = (TRACE + free(1, 3.0) * 2000).encode()
    packed = {
        "xz": lambda: lzma.compress(raw),
        "gz": lambda: gzip.compress(raw),
        "zst": lambda: pa.compress(raw, codec="zstd", asbytes=True),
    }[suffix]()
    with pytest.raises(BadTraceError, match=r"damaged|ends"):
        read_events(trace(packed[: len(packed) // 2]))


def test_pieces_of_any_size_give_the_same(trace, monkeypatch):
    path = trace("".join(free(i + 1, i / 1e6, comm=f"task{i % 7}") for i in range(300)))
    whole = rows_of(read_events(path))
    monkeypatch.setattr(ftrace, "CHUNK", 137)
    monkeypatch.setattr(ftrace, "ROWS", 11)
    done = []
    reader = TraceReader(path, progress=lambda *at: done.append(at))
    batches = [ftrace.columns_of(rows) for rows in reader]
    assert [len(batch["line"]) for batch in batches] == [11] * 27 + [3]
    assert np.concatenate([batch["pfn"] for batch in batches]).tolist() == list(range(1, 301))
    assert whole[-1]["pfn"] == 300
    assert done[-1] == (path.stat().st_size, path.stat().st_size)
    assert done == sorted(done)


def test_a_line_that_is_longer_than_a_piece(trace, monkeypatch):
    monkeypatch.setattr(ftrace, "CHUNK", 200)
    with pytest.raises(BadTraceError, match=r"trace.txt:1: a line of more than"):
        read_events(trace(line("tracing_mark_write: " + "x" * 1000)))


@pytest.mark.parametrize("cut", [1, 5, 30, 60, 90])
def test_text_that_ends_within_a_line(trace, cut):
    path = trace((free(1) + free(2))[:-cut])
    with pytest.raises(BadTraceError, match=r"trace.txt:2: .*--allow-truncated"):
        read_events(path)
    assert read_events(path, allow_truncated=True).pfn.tolist() == [1]


def test_text_with_fewer_lines_than_its_header_tells(trace):
    path = trace(HEADER.format(3) + free(1) + free(2))
    with pytest.raises(BadTraceError, match="after 2 of the 3 events"):
        read_events(path)
    assert len(read_events(path, allow_truncated=True)) == 2
    assert len(read_events(trace(HEADER.format(2) + free(1) + free(2)))) == 2


def test_lines_out_of_order(trace):
    good = free(1, 1.0) + free(2, 1.2, cpu=1) + free(3, 1.1)
    assert len(read_events(trace(good))) == 3
    with pytest.raises(BadTraceError, match=r"trace.txt:4: .*out of order.*pfn=0x9"):
        read_events(trace(good + free(9, 1.1, cpu=1)))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("pfn=0x1000", "pfn=0x1q00", "missing or damaged"),
        ("pfn=0x1000", "pfn=", "missing or damaged"),
        ("pfn=0x1000", "pfm=0x1000", "missing or damaged"),
        ("pfn=0x1000", "pfn=0x11111111111111111", "missing or damaged"),
        ("pfn=0x1000", "pfn=0x10000000000000", "cannot be"),
        ("pfn=0x1000 order=0", "pfn=0x1001 order=1", "cannot be"),
        ("order=0", "order=40", "cannot be"),
        ("order=0", "order=-1", "cannot be"),
        ("order=0", "order0", "missing or damaged"),
        ("migratetype=1", "migratetype=99", "cannot be"),
        ("gfp_flags=GFP_H", "gfp_flags=GFQ_H", "no gfp flag"),
        ("1.000000", "1.00000:", "missing or damaged|time stamp|not read"),
        ("1.000000", "1x000000", "time stamp"),
        (".....", ".Ü...", "unknown letter"),
        ("[000]", "[0a0]", "not a line"),
        ("init-1", "init_1", "not a line"),
        ("            init-1       [000] .....", "", "not a line"),
        ("            init-1       [000] .....", "\0\1\2", "not a line"),
    ],
)
def test_damaged_lines(trace, old, new, reason):
    text = alloc(0x1000)
    assert old in text
    path = trace(free(1) + text.replace(old, new, 1) + free(2))
    if "not read" in reason:
        assert len(read_events(path)) == 2
        return
    with pytest.raises(BadTraceError, match=reason) as caught:
        read_events(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_flipped_bits_never_crash(tmp_path_factory, data):
    raw = bytearray(TRACE.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        bit = data.draw(st.integers(0, len(raw) * 8 - 1))
        raw[bit // 8] ^= 1 << bit % 8
    path = tmp_path_factory.mktemp("flip") / "t"
    path.write_bytes(raw)
    try:
        assert len(read_events(path)) > 0
    except BadTraceError as error:
        assert "\n" not in str(error)  # noqa: PT017 - no error is fine too


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(
        st.tuples(
            st.sampled_from(ONE_OF_EACH),
            st.integers(0, 3),
            st.sampled_from(["init", "a b", "kworker/0:1", "x-7"]),
            st.sampled_from([".....", "d..1.", ".Ns2.", "dN.3."]),
            st.integers(0, 99999),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_any_mixture_reads_like_the_slow_reader(tmp_path_factory, lines):
    text = free(1, 0.5, flags="...1.") + "".join(
        line(event, 1 + i / 1e6, cpu=cpu, comm=comm, flags=flags, pid=pid)
        for i, (event, cpu, comm, flags, pid) in enumerate(lines)
    )
    path = tmp_path_factory.mktemp("mix") / "t"
    path.write_text(text)
    assert rows_of(read_events(path)) == [slow_row(each) for each in text.splitlines()]


@pytest.mark.parametrize("text", ["", "\n\n# only comments\n", line("kmalloc_node: ptr=1")])
def test_no_event_of_the_page_allocator(trace, text):
    with pytest.raises(BadTraceError, match="no event of the page allocator"):
        read_events(trace(text))


@pytest.mark.parametrize("char", ["\b", "*", "J", "\x8a", "\x1a", " ", "\t", "\r"])
def test_a_damaged_newline(trace, char):
    text = free(1) + alloc(1, 1.0) + free(2, 1.0)
    with pytest.raises(BadTraceError, match=r"trace.txt:1: "):
        read_events(trace(text.replace("\n", char, 1)))


def test_no_trace_at_all(trace, tmp_path):
    with pytest.raises(BadTraceError, match="no such file"):
        read_events(tmp_path / "absent")
    with pytest.raises(BadTraceError, match="not a line of ftrace text"):
        read_events(trace("hello\n"))
    with pytest.raises(BadTraceError, match=r"ends within a line|not a line"):
        read_events(trace(bytes(range(256)) * 10))


def test_more_texts_than_the_tables_hold(trace, monkeypatch):
    monkeypatch.setitem(ftrace._LIMITS, ftrace.bs.COMM, 3)
    events = read_events(trace("".join(free(1, comm=f"t{i}") for i in range(6))))
    assert [events.comms[i] for i in events.comm] == ["t0", "t1", "t2", "<...>", "<...>", "<...>"]


def test_events_slice_and_arrow(trace):
    events = read_events(trace(TRACE))
    part = events[2:5]
    assert isinstance(part, Events)
    assert len(part) == 3
    again = Events.from_arrow(events.to_arrow())
    assert rows_of(again) == rows_of(events)
    assert rows_of(Events.from_arrow(events.to_arrow().slice(2, 3))) == rows_of(part)
    assert len(Events.from_arrow(Events.empty().to_arrow())) == 0


def test_a_column_that_is_not_there():
    events = Events.from_columns({"kind": [1]})
    with pytest.raises(AttributeError, match="'pfn' was not read"):
        _ = events.pfn
    with pytest.raises(AttributeError, match="nonsense"):
        _ = events.nonsense
    with pytest.raises(ValueError, match="different lengths"):
        Events.from_columns({"kind": [1], "pfn": [1, 2]})
    with pytest.raises(ValueError, match="no column"):
        Events.from_columns({"king": [1]})
