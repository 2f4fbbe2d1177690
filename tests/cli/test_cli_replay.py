# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem replay`, `demo`, `picture` and `warm`."""

import json
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
from pyarrow import parquet
from tests.cli_fixtures import program, tiny_recording

from physmem.cli import demo as demo_command
from physmem.cli.main import run
from physmem.cli.run import _Reading
from physmem.machine.machine import open_machine
from physmem.replay.columns import COLUMNS
from physmem.trace.capture import read_capture, write_capture

DEMO = Path(str(files("physmem") / "data" / "demo.physmem"))
KEYS = {
    "events",
    "allocations",
    "exact",
    "exact_share",
    "consequences",
    "consequences_exact",
    "races",
    "first_divergence",
    "final",
    "seconds",
    "events_per_second",
}
FINAL = {
    "free_lists_equal",
    "pcp_lists_equal",
    "pageblocks_equal",
    "buddyinfo_equal",
    "pagetypeinfo_equal",
}

pytestmark = pytest.mark.slow  # the kernels of a replay take half a minute to compile


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A capture of two allocations and a free."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_recording(folder / "r")
    assert run(["import", str(folder / "r"), "-q", "-o", str(folder / "tiny.physmem")]) == 0
    return folder / "tiny.physmem"


@pytest.fixture(scope="module")
def diverging(tiny):
    """The same, but another frame was recorded for the second allocation."""
    capture = read_capture(tiny)
    at = capture.events.pfn.tolist().index(0x1014)
    capture.events.pfn[at] += 300
    path = tiny.with_name("diverging.physmem")
    write_capture(path, capture.events, capture.info, capture.state0, capture.state1)
    return path


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PHYSMEM_DEBUG", raising=False)


def test_equal(tiny, capsys):
    assert run(["replay", str(tiny)]) == 0
    out = capsys.readouterr().out
    assert "0     Normal         2      2  100 %" in out
    assert "EXACT: 2 of 2 allocations, 1 of 1 consequences, final state equal" in out
    assert out.count("  equal\n") == 5
    assert "ivergence" not in out
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("options", [(), ("--strict",)])
def test_equal_as_json(options, tiny, capsys):
    assert run(["replay", str(tiny), "--json", *options]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert set(found) >= KEYS
    assert set(found["final"]) >= FINAL
    assert all(found["final"][name] for name in FINAL)
    assert (found["events"], found["allocations"], found["exact"]) == (5, 2, 2)
    assert (found["exact_share"], found["first_divergence"]) == (1.0, None)
    assert found["strict"] == bool(options)
    assert err == ""


def test_diverging(diverging, capsys):
    assert run(["replay", str(diverging)]) == 1
    out = capsys.readouterr().out
    for text in (
        "DIVERGED: 1 of 2 allocations",
        "First divergence: trace line 5",
        "recorded   0x1140",
        "predicted  0x1014",
        "HEAD of the CPU's own list",
        "> 5: [000] pid 1 mm_page_alloc: pfn=0x1140",
        "  before this line the model had",
        "0x1014 in zone Normal of node 0: per-CPU list of cpu 0",
        "50.0000 %",
    ):
        assert text in out, text
    assert run(["replay", str(diverging), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["first_divergence"]["line"] == 5
    assert {"line", "expected", "predicted", "why"} <= set(found["first_divergence"])
    assert found["exact_share"] == 0.5


def test_quiet(diverging, capsys):
    assert run(["replay", str(diverging), "-q"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("DIVERGED: ")
    assert (out.count("\n"), err) == (1, "")


def test_a_final_state_that_differs(tiny, capsys):
    capture = read_capture(tiny)
    capture.state1.zones[0].pageblocks = "UM"
    write_capture("other.physmem", capture.events, capture.info, capture.state0, capture.state1)
    assert run(["replay", "other.physmem"]) == 1
    out = capsys.readouterr().out
    assert "pageblock types          DIFFERENT" in out
    assert "free lists, in order     equal" in out
    assert "pageblock 0 at 0x1000: expected U, actual M" in out
    assert "final state differs" in out


def test_no_final_state(tiny, capsys):
    capture = read_capture(tiny)
    info = msgspec.structs.replace(capture.info, state1_row=None, state1_line=None)
    write_capture("open.physmem", capture.events, info, capture.state0)
    assert run(["replay", "open.physmem"]) == 0
    assert "no final state recorded" in capsys.readouterr().out


def test_outputs(tiny, capsys):
    files = ["--predictions", "p.parquet", "--save", "end.machine", "--picture", "map.svg"]
    assert run(["replay", str(tiny), *files]) == 0
    assert "EXACT" in capsys.readouterr().out
    table = parquet.read_table("p.parquet").to_pydict()
    assert table == {"line": [4, 5], "recorded": [0x1080, 0x1014], "predicted": [0x1080, 0x1014]}
    assert open_machine("end.machine").snapshot().zones[0].nr_free == [0] * 6 + [1, 0, 1, 1, 0]
    assert Path("map.svg").read_text(encoding="utf-8").startswith("<svg")
    assert sorted(path.name for path in Path().iterdir()) == ["end.machine", "map.svg", "p.parquet"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--picture", "map.gif"),
        ("--picture", "nowhere/map.png"),
        ("--save", "."),
        ("--predictions", "TINY"),
        ("--save", "/dev/full"),
        ("--predictions", "/dev/full"),
    ],
)
def test_bad_outputs(arguments, tiny, capsys):
    before = tiny.read_bytes()
    given = [str(tiny) if word == "TINY" else word for word in arguments]
    assert run(["replay", str(tiny), *given]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert list(Path().iterdir()) == []
    assert tiny.read_bytes() == before


def test_bad_captures(tiny, tmp_path):
    good = tiny.read_bytes()
    at = good.index(b"PAR1") + 40
    cases = {
        "missing": None,
        "empty": b"",
        "text": b"no capture",
        "truncated": good[: len(good) // 2],
        "flipped": good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :],
        "table": None,
    }
    (tmp_path / "bad").mkdir()
    for name, content in cases.items():
        if content is not None:
            (tmp_path / "bad" / name).write_bytes(content)
    parquet.write_table(parquet.read_table(tiny).replace_schema_metadata(), tmp_path / "bad/table")
    for name in cases:
        done = program("replay", f"bad/{name}", "--picture", "map.png")
        assert done.returncode == 2, (name, done)
        assert (done.stdout, done.stderr.count("\n")) == ("", 1), (name, done)
        assert "Traceback" not in done.stderr
    assert [path.name for path in Path().iterdir()] == ["bad"]


def test_a_capture_of_another_machine(tiny, capsys):
    capture = read_capture(tiny)
    capture.events.cpu[:] = 7
    write_capture("cpus.physmem", capture.events, capture.info, capture.state0, capture.state1)
    assert run(["replay", "cpus.physmem"]) == 2
    assert "do not belong together" in capsys.readouterr().err


def test_pictures(tiny, capsys):
    assert run(["picture", str(tiny)]) == 0
    assert capsys.readouterr().out == "wrote tiny.png\n"
    assert Path("tiny.png").read_bytes()[:4] == b"\x89PNG"
    assert run(["picture", str(tiny), "-q", "-o", "start.svg", "--mosaic"]) == 0
    assert run(["picture", str(tiny), "-q", "-o", "end.svg", "--mosaic", "--end"]) == 0
    assert Path("start.svg").read_text(encoding="utf-8") != Path("end.svg").read_text(
        encoding="utf-8"
    )
    assert run(["picture", str(tiny), "-q", "-o", "end.png", "--mosaic", "--end"]) == 0
    assert run(["picture", str(tiny), "-o", "end.txt", "--mosaic"]) == 2
    assert "ends in .png or .svg" in capsys.readouterr().err


def test_what_is_read_is_what_a_replay_reads(tiny):
    assert _Reading(tiny, timed=False).result().events.columns == COLUMNS
    assert set(_Reading(tiny, timed=True).result().events.columns) == {*COLUMNS, "ts"}


def test_the_demo_ships_a_real_recording():
    assert DEMO.stat().st_size <= 3 << 20
    assert read_capture(DEMO, columns=()).info.rows >= 200_000


def test_the_demo_is_exact(capsys):
    assert run(["demo"]) == 0
    out = capsys.readouterr().out
    for text in (
        "EXACT: 456,962 of 456,962 allocations, 785,747 of 785,747 consequences",
        "Node 0, zone  Movable    186     79     29",
        "Number of blocks type     Unmovable      Movable",
        "one cell = one pageblock",
        "memory over time: physmem-demo.png",
    ):
        assert text in out, text
    assert "\033" not in out
    assert [path.name for path in Path().iterdir()] == [demo_command.PICTURE]


def test_the_demo_as_json(capsys):
    assert run(["demo", "--json", "--no-picture"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["exact_share"], found["races"], found["picture"]) == (1.0, 0, None)
    assert all(found["final"][name] for name in FINAL)
    assert list(Path().iterdir()) == []


def test_the_demo_with_a_bad_event(capsys):
    capture = read_capture(DEMO)
    capture.events.pfn[capture.events.kind == 1] ^= 1
    write_capture("bad.physmem", capture.events, capture.info, capture.state0, capture.state1)
    assert run(["replay", "bad.physmem", "-q"]) == 1
    assert capsys.readouterr().out.startswith("DIVERGED: ")


def test_warm(capsys):
    assert run(["warm", "-q"]) == 0
    assert "kernels ready in" in capsys.readouterr().out
    assert run(["warm"]) == 0
    out, err = capsys.readouterr()
    assert "(0 new, " in out
    assert err == ""
