# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem replay --slab`, `slabinfo` and `slabtop`."""

import json
from pathlib import Path

import pytest
from tests.cli_fixtures import TRACE, tiny_recording
from tests.trace_fixtures import line

from physmem import Machine
from physmem.cli.main import run
from physmem.slab.direct_map import DIRECT_MAPS
from physmem.views.slabinfo import parse_slabinfo

CAPTURE = Path(__file__).parents[1] / "recordings" / "linux-6.1-x86_64-512M-slab.physmem"
START = 0x1000


def test_replay_as_text_and_in_one_line(capsys):
    assert run(["replay", "--slab", str(CAPTURE)]) == 0  # all that can be known
    text = capsys.readouterr().out
    assert "24,116 of 24,173 (99.76 %)" in text
    assert "197 of 197 (100.00 %)" in text
    assert "shmem_inode_cache" in text
    assert run(["replay", "--slab", "-q", str(CAPTURE)]) == 0
    assert capsys.readouterr().out.startswith("slabs: 22,678 of 22,678 (100.00 %) objects")


def test_replay_as_json(capsys):
    assert run(["replay", "--slab", "--json", str(CAPTURE)]) == 0
    found = json.loads(capsys.readouterr().out)
    wanted = {
        "objects": 52207, "unknown_pointers": 0, "allocations": 24173, "exact": 24116,
        "known": 22678, "known_exact": 22678, "slabs_made": 197, "slabs_made_exact": 197,
        "slabs_ended": 176, "slabs_ended_exact": 176, "extra": 0, "inconsistent": [],
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted
    assert sum(each["allocations"] for each in found["caches"]) == found["allocations"]


def object_lines(pointers):
    for at, pointer in enumerate(pointers):
        yield line(
            f"kmalloc: call_site=some_user+0x35/0x250 ptr={pointer} bytes_req=4000 "
            "bytes_alloc=4096 gfp_flags=GFP_KERNEL node=-1 accounted=false",
            2.21 + at / 1000,
        )
    for at, pointer in enumerate(pointers):
        yield line(f"kfree: call_site=some_user+0x45/0x250 ptr={pointer}", 2.25 + at / 1000)


def test_objects_of_trace_text(tmp_path, capsys):
    """From the text of ftrace to the report; pointers that lie nowhere are counted."""
    base = DIRECT_MAPS["x86_64"].page_offset + (START << 12)
    pointers = [f"{base + at * 4096:016x}" for at in (128, 129, 130, 131)]
    pointers += ["(____ptrval____)", "00000000deadbeef"]
    texts = [*object_lines(pointers)]
    lines = TRACE.splitlines(keepends=True)
    trace = "".join([*lines[:-1], *texts, lines[-1]])
    tiny_recording(
        tmp_path / "r",
        trace_txt=trace,
        manifest={
            "trace": {
                "lines": 7 + len(texts),
                "events": {
                    "mm_page_alloc": 3, "mm_page_alloc_zone_locked": 1, "mm_page_free": 1,
                    "tracing_mark_write": 2, "kmalloc": 6, "kfree": 6,
                },
                "lost": 0,
            },
            "state0_before_line": 2,
            "state1_before_line": 7 + len(texts),
        },
    )  # fmt: skip
    path = tmp_path / "t.physmem"
    assert run(["import", "-q", str(tmp_path / "r"), "-o", str(path)]) == 0
    capsys.readouterr()
    run(["replay", "--slab", "--json", str(path)])
    found = json.loads(capsys.readouterr().out)
    assert found["objects"] == 12
    assert found["allocations"] == 4
    assert found["unknown_pointers"] >= 2
    assert {each["name"] for each in found["caches"]} == {"kmalloc-4k"}


def test_a_capture_without_objects(capsys, tmp_path):
    tiny_recording(tmp_path / "r")
    path = tmp_path / "t.physmem"
    assert run(["import", "-q", str(tmp_path / "r"), "-o", str(path)]) == 0
    for command in (["replay", "--slab"], ["slabinfo"], ["slabtop"]):
        capsys.readouterr()
        assert run([*command, str(path)]) == 2
        error = capsys.readouterr().err
        assert "no events of objects" in error
        assert error.count("\n") == 1


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    machine = Machine.build("64MiB")
    machine.slab_start("slub")
    cache = machine.kmem_cache_create("thing", 1000)
    live = cache.alloc_bulk(20)
    path = tmp_path_factory.mktemp("saved") / "m.machine"
    machine.save(path)
    return path, machine.slab.paddr(live[0]) >> 12


def test_a_saved_machine(saved, capsys):
    path, pfn = saved
    assert run(["slabinfo", str(path)]) == 0
    rows = {row.name: row for row in parse_slabinfo(capsys.readouterr().out)}
    assert rows["thing"].objsize == 1000
    assert run(["slabinfo", str(path), "--cache", "thing"]) == 0
    text = capsys.readouterr().out
    assert "object_size: 1000\n" in text
    assert "slabs: 3 N0=3\n" in text
    for number in (str(pfn), hex(pfn)):
        assert run(["slabinfo", str(path), "--pins", number]) == 0
        text = capsys.readouterr().out
        assert text.startswith("byte 0 of object 0 (allocated) of cache thing, slab at frame")
        assert "objects in use" in text
        assert f"block {pfn >> 9} " in text
    assert run(["slabinfo", str(path), "--report", "waste"]) == 0
    assert "thing" in capsys.readouterr().out
    assert run(["slabinfo", str(path), "--report", "pins"]) == 0
    assert "thing" in capsys.readouterr().out
    assert run(["slabinfo", str(path), "--cache", "none"]) == 2
    assert "'none'" in capsys.readouterr().err
    assert run(["slabinfo", str(path), "--pins", "0x10000000"]) == 2
    assert "this machine has frames" in capsys.readouterr().err
    assert run(["slabinfo", str(path), "--pins", "x"]) == 2


def test_a_machine_without_slabs(tmp_path, capsys):
    Machine.build("64MiB").save(tmp_path / "m")
    assert run(["slabinfo", str(tmp_path / "m")]) == 2
    assert "never started" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("allocator", ["slub", "slab"])
def test_recorded_objects_on_a_machine_of_ones_own(allocator, capsys):
    own = ["--allocator", allocator, "--cpus", "2"]
    assert run(["slabinfo", str(CAPTURE), *own]) == 0
    captured = capsys.readouterr()
    rows = {row.name: row for row in parse_slabinfo(captured.out)}
    assert rows["dentry"].num_objs >= rows["dentry"].active_objs > 0
    assert "allocations" in captured.err
    assert run(["slabtop", str(CAPTURE), *own, "-n", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert run(["slabinfo", "-q", str(CAPTURE), *own, "--pins", "0x1100"]) == 0
    captured = capsys.readouterr()
    assert "frames of slabs" in captured.out
    assert captured.err == ""
