# SPDX-License-Identifier: GPL-2.0-or-later
"""Capture files: round trips, damage, interrupted writes."""

import gc
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tests.trace_fixtures import STATE0_FREE, STATE1_FREE, make_state

from physmem.lib.errors import BadCaptureError, BadStateError
from physmem.lib.output import replace_file
from physmem.mm.state import encode_state
from physmem.trace.capture import (
    KEY,
    STATE_KEYS,
    SUM_KEY,
    CaptureInfo,
    MachineInfo,
    capture_writer,
    metadata_sum,
    read_capture,
    read_info,
    write_capture,
)
from physmem.trace.compact import (
    compact_capture,
    decode_delta,
    decode_kind_delta,
    encode_delta,
    encode_kind_delta,
)
from physmem.trace.events import DTYPES, Events
from physmem.trace.info import FORMAT


def make_events(rows=5000, seed=7):
    rng = np.random.default_rng(seed)
    columns = {
        name: rng.integers(0, min(np.iinfo(dtype).max, 1 << 20), rows).astype(dtype)
        for name, dtype in DTYPES.items()
    }
    columns["line"] = np.arange(13, 13 + rows)
    columns["ts"] = np.sort(columns["ts"]) * 1000
    columns["kind"] = rng.integers(1, 13, rows).astype(np.uint8)
    columns["comm"] %= 3
    columns["pfn"][::7] = -1
    columns["pfn"][2] = -0x77C001D9A00
    return Events.from_columns(columns, ["init", "a b", "<idle>"], ["SNAP0"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.physmem"


@pytest.fixture
def written(path):
    info = CaptureInfo(
        machine=MachineInfo(kernel="6.1.170", cpu_node=[0, 1], node_distance=[[10, 20], [20, 10]]),
        state0_row=1000,
        state1_row=4000,
        movable0=[(3, 4), (9, 1)],
        lines=5013,
    )
    events = make_events()
    write_capture(path, events, info, make_state(STATE0_FREE), make_state(STATE1_FREE))
    return events


def same(a, b):
    assert a.columns == b.columns
    for name in a.columns:
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype == DTYPES[name]
        assert np.array_equal(x, y), name
    assert (a.comms, a.markers) == (b.comms, b.markers)


def test_round_trip(path, written):
    capture = read_capture(path)
    same(capture.events, written)
    assert capture.info.rows == 5000
    assert capture.info.machine.node_distance == [[10, 20], [20, 10]]
    assert capture.info.movable0 == [(3, 4), (9, 1)]
    assert encode_state(capture.state0) == encode_state(make_state(STATE0_FREE))
    assert encode_state(capture.state1) == encode_state(make_state(STATE1_FREE))
    assert read_info(path) == capture.info
    for name in capture.events.columns:
        assert getattr(capture.events, name).flags.writeable


def test_some_columns(path, written):
    events = read_capture(path, columns=("pfn", "kind")).events
    assert events.columns == ("kind", "pfn")
    assert np.array_equal(events.pfn, written.pfn)
    with pytest.raises(AttributeError, match="not read"):
        _ = events.ts
    write_capture(path, Events.from_columns({"kind": [1]}), CaptureInfo())
    with pytest.raises(BadCaptureError, match="no column pfn"):
        read_capture(path, columns=("pfn",))


def test_other_tools_see_the_columns(path, written):
    table = parquet.read_table(path)
    assert table.column_names == list(DTYPES)
    assert table["pfn"].to_pylist() == written.pfn.tolist()


def test_no_rows(path):
    with capture_writer(path) as writer:
        writer.finish(CaptureInfo(columns=list(DTYPES)))
    assert len(read_capture(path).events) == 0


def test_in_pieces(path, written):
    with capture_writer(path) as writer:
        for at in range(0, 5000, 700):
            part = written[at : at + 700]
            writer.write({name: getattr(part, name) for name in part.columns})
        writer.finish(CaptureInfo(columns=list(DTYPES), comms=written.comms, markers=["SNAP0"]))
    same(read_capture(path).events, written)


def test_a_kernel_without_preemption_count(path, written):
    with capture_writer(path) as writer:
        writer.write({name: getattr(written, name) for name in written.columns})
        writer.finish(CaptureInfo(columns=list(DTYPES), encoding={"preempt": "no count"}))
    assert set(read_capture(path).events.preempt.tolist()) == {255}
    compact_capture(path, path)
    assert set(read_capture(path).events.preempt.tolist()) == {255}


# ---- compact ------------------------------------------------------------------------------------


def test_compact_loses_nothing_between_the_states(path, written, tmp_path):
    before, after = compact_capture(path, tmp_path / "b")
    assert after < before
    capture = read_capture(tmp_path / "b")
    same(capture.events, written[1000:4000])
    info = capture.info
    assert (info.state0_row, info.state1_row, info.rows) == (0, 3000, 3000)
    assert info.movable0 == [(3, 4), (9, 1)]
    assert capture.state1 is not None
    only = read_capture(tmp_path / "b", columns=("pfn",)).events
    assert only.columns == ("pfn",)
    assert np.array_equal(only.pfn, written.pfn[1000:4000])
    compact_capture(tmp_path / "b", tmp_path / "c")
    same(read_capture(tmp_path / "c").events, written[1000:4000])


int64s = st.integers(-(1 << 63), (1 << 63) - 1)


@given(values=st.lists(st.tuples(int64s, st.integers(1, 12)), max_size=50))
def test_kind_delta(values):
    pfn = np.array([value for value, _ in values], np.int64)
    kind = np.array([kind for _, kind in values], np.uint8)
    assert np.array_equal(decode_kind_delta(encode_kind_delta(pfn, kind), kind), pfn)


@given(
    values=st.lists(st.integers(0, (1 << 53)), max_size=50),
    unit=st.sampled_from([1, 1000]),
)
def test_delta(values, unit):
    times = np.sort(np.array(values, np.int64)) * unit
    assert np.array_equal(decode_delta(encode_delta(times, unit), unit), times)


# ---- damage -------------------------------------------------------------------------------------


def test_no_capture(tmp_path, path):
    with pytest.raises(BadCaptureError, match="no such file"):
        read_capture(tmp_path / "absent")
    with pytest.raises(BadCaptureError, match="no such file"):
        read_info(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(BadCaptureError, match="an empty file"):
        read_capture(path)
    path.write_text("hello, this is no Parquet file\n")
    with pytest.raises(BadCaptureError, match="no capture, or damaged"):
        read_capture(path)
    parquet.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(BadCaptureError, match="no capture of physmem"):
        read_info(path)


def rewrite(path, changes):
    table = parquet.read_table(path)
    metadata = {**table.schema.metadata, **changes}
    metadata[SUM_KEY] = metadata_sum(metadata)
    parquet.write_table(table.replace_schema_metadata(metadata), path)


@pytest.mark.usefixtures("written")
def test_newer_format(path):
    info = msgspec.json.encode({"format": FORMAT + 1, "rows": "else"})
    rewrite(path, {KEY: info})
    with pytest.raises(BadCaptureError, match=r"newer physmem .*upgrade"):
        read_capture(path)


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize("text", [b"", b"{", b'{"format":1,"rows":"x"}', b"[1]", b"\xff"])
def test_damaged_metadata(path, text):
    rewrite(path, {KEY: text})
    with pytest.raises(BadCaptureError, match="damaged metadata"):
        read_capture(path)


@pytest.mark.usefixtures("written")
def test_damaged_states_and_counts(path):
    rewrite(path, {STATE_KEYS[0]: b'{"zones":1}'})
    with pytest.raises(BadStateError, match=r"physmem.state0"):
        read_capture(path)
    info = msgspec.structs.replace(read_info(path), rows=3)
    good = encode_state(make_state(STATE0_FREE))
    rewrite(path, {KEY: msgspec.json.encode(info), STATE_KEYS[0]: good})
    with pytest.raises(BadCaptureError, match="5000 rows instead of 3"):
        read_capture(path, columns=("kind",))
    rewrite(path, {})
    table = parquet.read_table(path)
    wrong = {**table.schema.metadata, SUM_KEY: b"00000000"}
    parquet.write_table(table.replace_schema_metadata(wrong), path)
    with pytest.raises(BadCaptureError, match="wrong checksum"):
        read_info(path)


@pytest.mark.usefixtures("written")
def test_truncated_files(path):
    raw = path.read_bytes()
    for size in (1, 4, 11, len(raw) // 3, len(raw) - 9, len(raw) - 1):
        path.write_bytes(raw[:size])
        with pytest.raises(BadCaptureError) as caught:
            read_capture(path)
        assert "\n" not in str(caught.value)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_flipped_bits_never_give_other_rows(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "a"
    events = make_events(300)
    write_capture(path, events, CaptureInfo())
    raw = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    path.write_bytes(raw)
    try:
        again = read_capture(path).events
    except BadCaptureError as error:
        assert "\n" not in str(error)  # noqa: PT017 - a flip in an unused byte is fine too
    else:
        same(again, events)


# ---- writing ------------------------------------------------------------------------------------


def test_an_interrupt_leaves_the_old_file(path, written):
    old = path.read_bytes()

    def interrupted():
        with capture_writer(path) as writer:
            writer.write({name: getattr(written, name) for name in written.columns})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    gc.collect()
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk(written):
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_capture("/dev/full", written, CaptureInfo())
    gc.collect()
    assert Path("/dev/full").is_char_device()


def test_places_where_no_file_can_be(tmp_path):
    events = make_events(3)
    with pytest.raises(FileNotFoundError, match="absent"):
        write_capture(tmp_path / "absent" / "a", events, CaptureInfo())
    with pytest.raises(IsADirectoryError):
        write_capture(tmp_path, events, CaptureInfo())


def test_replace_file_follows_links_and_keeps_modes(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with replace_file(link) as out:
        out.write(b"new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    plain = tmp_path / "plain"
    plain.touch()
    assert target.stat().st_mode == plain.stat().st_mode
