# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem import`, `info` and `proc`: good recordings, bad ones, interrupts, full disks."""

import json
import lzma
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.cli_fixtures import PROGRAM, TRACE, environment, program, tiny_recording
from tests.trace_fixtures import make_state

from physmem.cli.main import run
from physmem.mm.state import encode_state
from physmem.trace.capture import read_capture


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Work in an empty folder, beside the recordings."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("PHYSMEM_DEBUG", raising=False)


def _fails(capsys, *arguments):
    """Run a command that must refuse in one line and leave nothing behind; the line."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert run([*map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = [text for text in err.splitlines() if not text.startswith("compiling the kernels")]
    assert len(lines) == 1, err
    assert lines[0].startswith("physmem: ")
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    return lines[0]


def test_import_and_look(tmp_path, capsys):
    tiny_recording(tmp_path / "my-recording")
    assert run(["import", str(tmp_path / "my-recording")]) == 0
    out = capsys.readouterr().out
    for text in ("6.1.170", "mm_page_alloc", "lost events", "failed allocations", "never seen"):
        assert text in out
    assert [path.name for path in Path().iterdir()] == ["my-recording.physmem"]
    assert len(read_capture("my-recording.physmem").events) == 7

    assert run(["info", "my-recording.physmem"]) == 0
    out = capsys.readouterr().out
    for text in ("6.1.170", "x86_64, 1 CPU, 1 node", "Normal", "1,016", "state0.json", "panic=-1"):
        assert text in out
    assert run(["info", "--json", "my-recording.physmem"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 7
    assert found["machine"]["kernel"].startswith("6.1.170")
    assert found["counts"]["mm_page_free"] == 1
    assert found["provenance"]["files"]

    assert run(["proc", "my-recording.physmem", "buddyinfo"]) == 0
    start = capsys.readouterr().out
    assert start.startswith("Node 0, zone   Normal      0      0 ")
    assert run(["proc", "my-recording.physmem", "buddyinfo", "--end"]) == 0
    end = capsys.readouterr().out
    assert start != end
    assert run(["proc", "my-recording.physmem", "pagetypeinfo"]) == 0
    assert capsys.readouterr().out.startswith("Page block order: 9\nPages per block:  512\n")
    for view in ("unusable_index", "extfrag_index"):
        assert run(["proc", "my-recording.physmem", view]) == 0
        assert capsys.readouterr().out.startswith("Node 0, zone   Normal ")


def test_import_json_and_quiet(tmp_path, capsys):
    tiny_recording(tmp_path / "r")
    assert run(["import", str(tmp_path / "r"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["events"]["mm_page_alloc"] == 3
    assert (report["lost"], report["failed"], report["unknown_frees"]) == (0, 0, 0)
    assert report["output"] == "r.physmem"
    assert run(["import", str(tmp_path / "r"), "-q", "-o", "b.physmem"]) == 0
    out, err = capsys.readouterr()
    assert (out.count("\n"), err) == (1, "")
    assert out.startswith("b.physmem: 7 events of Linux 6.1.170")


def test_compact(tmp_path, capsys):
    tiny_recording(tmp_path / "r")
    assert run(["import", str(tmp_path / "r"), "--compact", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["output"] == "r.physmem"
    assert [path.name for path in Path().iterdir()] == ["r.physmem"]
    assert Path("r.physmem").stat().st_size == report["capture_bytes"]
    assert len(read_capture("r.physmem").events) == 5


def test_overwriting_needs_force(tmp_path, capsys):
    tiny_recording(tmp_path / "r")
    Path("r.physmem").write_text("precious")
    assert "--force" in _fails(capsys, "import", tmp_path / "r")
    assert run(["import", str(tmp_path / "r"), "--force", "-q"]) == 0
    capsys.readouterr()
    assert Path("r.physmem").read_bytes()[:4] == b"PAR1"
    Path("r.physmem").write_text("precious")
    (tmp_path / "r/trace.txt").write_text("damaged\n")
    _fails(capsys, "import", tmp_path / "r", "--force")


def _shuffled():
    lines = TRACE.splitlines(keepends=True)
    return "".join([lines[5], *lines[:5], *lines[6:]])


def _flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]


_XZ = lzma.compress(TRACE.encode() * 50)
_STATE = make_state(((9, 1, 0x1200),))
_HUGE = make_state(())
_HUGE.zones[0].spanned = 1 << 60
_OTHER = make_state(())
_OTHER.zones[0].name = "DMA32"
_TWICE = make_state(((9, 1, 0x1200), (9, 1, 0x1200)))

BAD_RECORDINGS = {
    "no trace": {"trace_txt": None},
    "empty trace": {"trace_txt": ""},
    "text that is no trace": {"trace_txt": "hello\nworld\n"},
    "truncated in a line": {"trace_txt": TRACE[:-40]},
    "truncated between lines": {"trace_txt": "".join(TRACE.splitlines(keepends=True)[:4])},
    "truncated xz": {"trace_txt": None, "trace_txt_xz": _XZ[: len(_XZ) // 2]},
    "flipped bit in xz": {"trace_txt": None, "trace_txt_xz": _flipped(_XZ)},
    "empty xz": {"trace_txt": None, "trace_txt_xz": b""},
    "flipped bit in text": {"trace_txt": TRACE.replace("order=6", "orddr=6")},
    "shuffled lines": {"trace_txt": _shuffled()},
    "absurd order": {"trace_txt": TRACE.replace("order=6", "order=66")},
    "absurd frame": {"trace_txt": TRACE.replace("pfn=0x1080", "pfn=0x" + "f" * 20)},
    "binary": {"trace_txt": bytes(range(256)) * 40},
    "empty state": {"state0_json": ""},
    "truncated state": {"state0_json": encode_state(_STATE)[:200]},
    "flipped bit in a state": {"state0_json": encode_state(_STATE).replace(b'"zones"', b'"zonEs"')},
    "a frame twice": {"state0_json": encode_state(_TWICE)},
    "absurd size": {"state0_json": encode_state(_HUGE)},
    "another machine's state": {"state1_json": encode_state(_OTHER)},
    "no manifest": {"manifest_json": None},
    "broken manifest": {"manifest_json": "{"},
    "manifest that is no text": {"manifest_json": b'{"kernel": "\xff"}'},
    "manifest that is a list": {"manifest_json": "[]"},
    "wrong counts": {"manifest": {"trace": {"events": {"mm_page_alloc": 99}}}},
    "state behind the end": {"manifest": {"state0_before_line": 2, "state1_before_line": 700}},
}


@pytest.mark.parametrize("changes", BAD_RECORDINGS.values(), ids=BAD_RECORDINGS.keys())
def test_a_bad_recording(changes, tmp_path, capsys):
    folder = tmp_path / "bad"
    tiny_recording(folder)
    for name, content in changes.items():
        if name == "manifest":
            tiny_recording(folder, manifest=content)
            continue
        stem, _, suffix = name.partition("_")
        path = folder / f"{stem}.{suffix.replace('_', '.')}"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    _fails(capsys, "import", folder)
    _fails(capsys, "import", folder, "--compact")


def test_no_recording_at_all(tmp_path, capsys):
    assert "no such directory" in _fails(capsys, "import", tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    assert "directory" in _fails(capsys, "import", tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "no trace.txt" in _fails(capsys, "import", tmp_path / "empty")


def test_no_place_for_the_output(tmp_path, capsys):
    tiny_recording(tmp_path / "r")
    assert "directory" in _fails(capsys, "import", tmp_path / "r", "-o", "nowhere/a.physmem")
    assert "directory" in _fails(capsys, "import", tmp_path / "r", "-o", tmp_path)
    assert "No space left" in _fails(capsys, "import", tmp_path / "r", "-o", "/dev/full")


@pytest.mark.parametrize("compact", [(), ("--compact",)])
def test_a_full_disk(compact, tmp_path, capsys):
    tiny_recording(tmp_path / "r")
    assert run(["import", str(tmp_path / "r"), "-o", "warm.physmem"]) == 0  # kernels compiled
    capsys.readouterr()

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = program("import", tmp_path / "r", *compact, preexec_fn=limit)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("physmem: ")
    assert "Traceback" not in done.stderr
    assert [path.name for path in Path().iterdir()] == ["warm.physmem"]


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
@pytest.mark.parametrize("compact", [(), ("--compact",)])
def test_interrupted_in_the_middle(number, code, line, compact, tmp_path):
    tiny_recording(tmp_path / "r")
    assert run(["import", str(tmp_path / "r"), "-q", "-o", "../warm.physmem"]) == 0
    (tmp_path / "r/trace.txt").unlink()
    with lzma.open(tmp_path / "r/trace.txt.xz", "wb", preset=0) as long:  # some seconds of work
        for _ in range(100):
            long.write(b"# nothing\n" * (1 << 18))
    # a shell's background job ignores interrupts, and what it starts inherits that
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    running = subprocess.Popen(
        [*PROGRAM, "import", str(tmp_path / "r"), *compact],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 60
    while not any(Path().rglob(".*")) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (code, "", f"physmem: {line}\n")
    assert list(Path().iterdir()) == []


def test_bad_captures(tmp_path, capsys):
    tiny_recording(tmp_path / "r")
    assert run(["import", str(tmp_path / "r"), "-q", "-o", "good.physmem"]) == 0
    capsys.readouterr()
    good = Path("good.physmem").read_bytes()
    at = good.index(b"panic=-1")
    cases = {
        "empty": b"",
        "text": b"hello",
        "truncated": good[:-100],
        "half": good[: len(good) // 2],
        "head only": good[:4],
        "flipped in the metadata": good[:at] + b"q" + good[at + 1 :],
    }
    for name, content in cases.items():
        path = tmp_path / f"{name}.physmem"
        path.write_bytes(content)
        _fails(capsys, "info", path)
        _fails(capsys, "proc", path, "buddyinfo")
    _fails(capsys, "info", tmp_path / "missing.physmem")
    _fails(capsys, "info", tmp_path)


def test_a_capture_without_states(tmp_path, capsys):
    tiny_recording(tmp_path / "r", state0_json=None, state1_json=None)
    assert run(["import", str(tmp_path / "r")]) == 0
    assert "nothing can be replayed" in capsys.readouterr().out
    assert "no state of the start" in _fails(capsys, "proc", "r.physmem", "buddyinfo")
    assert "no state of the end" in _fails(capsys, "proc", "r.physmem", "buddyinfo", "--end")
    assert "start state" in _fails(capsys, "replay", "r.physmem")
