# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines as files, copies and equals: what is kept, and what a damaged file leads to."""

import json
import random
import zipfile

import numpy as np
import pytest

from physmem.lib.errors import BadInputError
from physmem.lib.jit import PURE
from physmem.machine import store
from physmem.machine.buffers import CHUNK, copy_sparse, load_chunks, reserve, written_chunks
from physmem.machine.machine import Machine, open_machine

pytestmark = pytest.mark.pure

MOVABLE = "GFP_HIGHUSER_MOVABLE"


@pytest.fixture
def machine():
    made = Machine.build("20MiB", cpus=2)
    rng = random.Random(1)
    live = [
        (made.alloc_pages(o, g, cpu=o % 2), o) for o in (0, 0, 1, 3, 4) for g in (0xCC0, MOVABLE)
    ]
    for pfn, order in rng.sample(live, 5):
        made.free_pages(pfn, order, cpu=1)
    return made


@pytest.fixture
def saved(machine, tmp_path):
    path = tmp_path / "a.machine"
    machine.save(path)
    return path


def test_a_file_brings_back_the_machine(machine, saved):
    opened = open_machine(saved)
    assert opened == machine
    assert opened.differences(machine) == ()
    assert opened.layout == machine.layout
    assert (opened.tables.mem_map == machine.tables.mem_map).all()
    opened.validate()
    # and it goes on in the same way
    again = [opened.alloc_pages(order % 4, MOVABLE, cpu=order % 2) for order in range(40)]
    assert again == [machine.alloc_pages(order % 4, MOVABLE, cpu=order % 2) for order in range(40)]
    assert opened == machine


def test_tracing_is_not_saved(machine, tmp_path):
    machine.tracing()
    machine.alloc_pages(5)
    machine.save(tmp_path / "b")
    opened = open_machine(tmp_path / "b")
    opened.alloc_pages(5)
    assert opened.events() == []
    assert len(machine.events()) == 1


def test_a_file_appears_whole_or_not_at_all(machine, saved, monkeypatch):
    before = saved.read_bytes()

    def fail(_array):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "written_chunks", fail)
    with pytest.raises(KeyboardInterrupt):
        machine.save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_where_nothing_can_be_written(machine, tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        machine.save(tmp_path / "nowhere" / "a")


def one_line(path):
    with pytest.raises(BadInputError) as caught:
        open_machine(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_files_that_are_no_machines(tmp_path):
    path = tmp_path / "x"
    assert "no such file" in one_line(path)
    for content in (b"", b"PK", b"some text\n" * 100, bytes(5000)):
        path.write_bytes(content)
        assert "no machine file" in one_line(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other", "1")
    one_line(path)
    one_line(tmp_path)


def test_a_file_cut_off(saved):
    content = saved.read_bytes()
    for length in range(0, len(content), max(1, len(content) // 25)):
        saved.write_bytes(content[:length])
        one_line(saved)


def test_a_byte_changed(machine, saved):
    content = saved.read_bytes()
    rng = random.Random(2)
    for _ in range(40):
        at = rng.randrange(len(content))
        damaged = bytearray(content)
        damaged[at] ^= 1 << rng.randrange(8)
        saved.write_bytes(damaged)
        try:
            # times and the like in the archive say nothing about the machine
            assert open_machine(saved) == machine
        except BadInputError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


def rewrite(path, change):
    """Replace members of the archive: `change(name, bytes)` gives the new bytes, or None."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            new = change(name, content)
            if new is not None:
                archive.writestr(name, new)


def change_header(path, change):
    def on_header(name, content):
        if not name.endswith(".json"):
            return content
        header = json.loads(content)
        change(header)
        return json.dumps(header)

    rewrite(path, on_header)


def test_a_newer_format(saved):
    change_header(saved, lambda header: header.update(format=4))
    text = one_line(saved)
    assert "format 4" in text
    assert "format 3" in text


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.clear(),
        lambda header: header.pop("layout"),
        lambda header: header["layout"].update(max_order=99),
        lambda header: header["layout"].update(max_order="x"),
        lambda header: header["layout"].update(max_order=9),
        lambda header: header["layout"].update(cpu_node=[0]),
        lambda header: header["layout"].update(zone_names=[]),
        lambda header: header["tables"].pop("zones"),
        lambda header: header["tables"]["zones"].__setitem__(0, 3),
        lambda header: header["tables"]["zones"].__setitem__(0, -1),
        lambda header: header["tables"]["zones"].__setitem__(0, None),
        lambda header: header["tables"]["mem_map"].__setitem__(0, 1 << 40),
        lambda header: header["tables"]["mem_map"].__setitem__(0, 100),
        lambda header: header["tables"]["mem_map"].__setitem__(1, "other"),
        lambda header: header["tables"].update(mem_map=7),
    ],
)
def test_a_header_that_does_not_fit(saved, change):
    change_header(saved, change)
    one_line(saved)


@pytest.mark.parametrize("table", ["memory", "zones", "mem_map", "pageset", "zonelist"])
def test_a_table_missing(saved, table):
    rewrite(saved, lambda name, content: None if name.startswith(table) else content)
    one_line(saved)


def test_chunks_outside_the_table(saved):
    far = np.array([1 << 40], "<i8").tobytes()
    rewrite(saved, lambda name, content: far if name == "mem_map.0.chunks" else content)
    assert "outside the table" in one_line(saved)


def test_wild_content_leads_nowhere(machine, tmp_path):
    """Whatever the tables hold, opening ends with a message and not in a wild jump."""
    path, rng = tmp_path / "w", random.Random(3)
    for _ in range(10 if PURE else 60):
        wild = machine.copy()
        name = rng.choice(["memory", "zones", "pageset", "mem_map", "zonelist", "pageblock_flags"])
        table = getattr(wild.tables, name).view(np.uint8)
        for _ in range(rng.choice((1, 8, 100))):
            table[rng.randrange(len(table))] = rng.randrange(256)
        wild.save(path)
        try:
            open_machine(path).validate()
        except BadInputError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


# -- copies and equals ----------------------------------------------------------------------------


def test_a_copy_is_equal_and_independent(machine):
    copied = machine.copy()
    assert copied == machine
    copied.validate()
    pfn = copied.alloc_pages(3)
    assert copied != machine
    assert machine.alloc_pages(3) == pfn
    assert copied == machine


def test_a_copy_of_a_traced_machine(machine):
    machine.tracing()
    copied = machine.copy()
    copied.alloc_pages(5)
    assert len(copied.events()) == 1
    assert machine.events() == []


def test_what_differs(machine):
    other = machine.copy()
    other.tables.zones["watermark"][1, 0] -= 1
    assert any("DMA32, wmark" in line for line in machine.differences(other))
    other = machine.copy()
    pfn = other.alloc_pages(4)
    assert "order" in machine.differences(other)[0]
    other = machine.copy()
    other.tables.mem_map["flags"][other.alloc_pages(0)] |= 2
    assert machine != other
    same, moved = machine.copy(), machine.copy()
    first, second = same.alloc_pages(4), moved.alloc_pages(4, "GFP_KERNEL")
    assert first == second == pfn
    moved.tables.mem_map["flags"][pfn] |= 2
    assert f"frame {pfn:#x}" in same.differences(moved)[0]
    assert Machine.build("20MiB").differences(machine)[0].startswith("layout")
    assert machine != "machine"
    with pytest.raises(TypeError):
        hash(machine)


# -- sparse buffers -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 10 * CHUNK + 5])
def test_chunks_are_put_back_where_they_were(size):
    source = reserve(size, np.uint8)
    rng = random.Random(size)
    for _ in range(4):
        source[rng.randrange(size)] = 9
    source[size - 1] = 3
    back, copied = reserve(size, np.uint8), reserve(size, np.uint8)
    for numbers, content in written_chunks(source):
        load_chunks(back, numbers, content.tobytes())
    copy_sparse(source, copied)
    assert (back == source).all()
    assert (copied == source).all()


def test_only_what_was_written_is_kept():
    source = reserve(1000 * CHUNK, np.uint8)
    source[500 * CHUNK + 3] = 1
    (numbers, content), *more = written_chunks(source)
    assert numbers.tolist() == [500]
    assert len(content) == CHUNK
    assert not more
    assert list(written_chunks(reserve(0, np.uint8))) == []


@pytest.mark.parametrize(
    ("numbers", "content"), [([0], b"x"), ([0], bytes(CHUNK + 1)), ([-1], bytes(CHUNK)), ([1], b"")]
)
def test_chunks_that_do_not_fit(numbers, content):
    with pytest.raises(ValueError):
        load_chunks(reserve(CHUNK, np.uint8), np.array(numbers, np.int64), content)
