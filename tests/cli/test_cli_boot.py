# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem boot`: machines in short, from files and from real logs; what is printed and kept."""

import json
import lzma
import re
import subprocess
from pathlib import Path

import pytest
from tests.cli_fixtures import PROGRAM, environment
from typer.testing import CliRunner

from physmem.arch.registry import ARCHS
from physmem.cli.app import app
from physmem.cli.main import run
from physmem.machine.machine import open_machine

LOGS = Path(__file__).parents[1] / "logs"
BASE = "linux-6.1-x86_64-512M"
NAMES = sorted(path.name for path in LOGS.iterdir() if path.is_dir())


def kernel_of(name):
    return name.split("-")[1]


IOMEM = """\
00001000-0009fbff : System RAM
0009fc00-0009ffff : Reserved
00100000-3ffd9fff : System RAM
  01000000-01e01ef1 : Kernel code
  02a00000-02c45bff : Kernel data
3ffda000-3fffffff : Reserved
"""
FIELDS = {
    *("arch", "kernel", "cmdline", "page_shift", "pageblock_order", "grouping", "total_pages"),
    *("policy_zone", "cpu_node", "totalram_pages", "min_free_kbytes", "memory", "zones"),
    *("fallback", "free_pages", "reserved", "stages", "assumptions", "log"),
}
COMPARISON = {"compared", "equal", "differences", "figures", "not_compared"}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PHYSMEM_DEBUG", raising=False)


def unpack(name, zoneinfo="zoneinfo"):
    """A log and its zoneinfo as plain files, as people have them."""
    for source, target in (("dmesg.txt", "dmesg.txt"), ("zoneinfo", zoneinfo)):
        data = lzma.decompress((LOGS / name / f"{source}.xz").read_bytes())
        Path(target).write_bytes(data)


def boots(capsys, *arguments, code=0):
    """Run `physmem boot`; what it prints."""
    assert run(["boot", *map(str, arguments)]) == code
    return capsys.readouterr().out


def boots_to_json(capsys, *arguments, code=0):
    return json.loads(boots(capsys, *arguments, "--json", code=code))


def counted(text):
    """(equal, compared) of a verdict: how many figures there are grows with what is compared."""
    return tuple(map(int, re.fullmatch(r"(\d+) of (\d+) figures equal\n", text).groups()))


def refuses(capsys, *arguments):
    """Run it where it must refuse, in one line and without leaving a file; the line."""
    before = sorted(Path().iterdir())
    assert run(["boot", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"physmem: [^\n]*\n", err), err
    assert "internal error" not in err
    assert "Traceback" not in err
    assert sorted(Path().iterdir()) == before
    return err


# -- what is printed -------------------------------------------------------------------------------


def test_it_prints_log_buddyinfo_and_zoneinfo(capsys):
    out = boots(capsys)
    log, buddyinfo, zoneinfo = out.split("\n\n")
    for line in (
        r"BIOS-e820: \[mem 0x0000000000100000-0x000000003ffd9fff\] usable",
        r"Zone ranges:",
        r"  DMA32    \[mem 0x0000000001000000-0x000000003ffd9fff\]",
        r"Built 1 zonelists, mobility grouping on\.  Total pages: \d+",
        r"Memory: \d+K/1048032K available \(.*\)",
        r"Freeing initrd memory: \d+K",
    ):
        assert re.search(rf"(?m)^{line}$", log), line
    for line in buddyinfo.splitlines():
        assert re.fullmatch(r"Node 0, zone +DMA(32)? ( +\d+){11} ", line), line
    assert zoneinfo.startswith("Node 0, zone      DMA\n  per-node stats\n")
    assert "\n        managed  3840\n" in zoneinfo
    assert "\033" not in out
    assert list(Path().iterdir()) == []


def test_the_words_of_the_short_form(capsys):
    words = ("--memory", "8GiB", "--nodes", "2", "--cpus", "4", "--cmdline", "movablecore=2G")
    found = boots_to_json(capsys, *words)
    assert found["cpu_node"] == [0, 0, 1, 1]
    assert found["fallback"] == {"0": [0, 1], "1": [1, 0]}
    assert found["cmdline"] == "movablecore=2G"
    managed = {(zone["node"], zone["name"]): zone["managed_pages"] for zone in found["zones"]}
    assert managed[0, "Movable"] > 0
    assert managed[1, "Movable"] > 0
    physical = sum(zone["present_pages"] for zone in found["zones"]) * 4
    assert found["memory"]["physical"] == physical
    assert found["totalram_pages"] == sum(managed.values())


def test_as_json(capsys):
    found = boots_to_json(capsys, "--arch", "i386")
    assert set(found) == FIELDS
    assert (found["arch"], found["kernel"], found["page_shift"]) == ("i386", "6.1", 12)
    assert [zone["name"] for zone in found["zones"]][:3] == ["DMA", "Normal", "HighMem"]
    assert {"name", "sentence", "taken_frames", "given_frames", "ranges"} == set(found["stages"][0])
    ends = [(held["start"], held["end"]) for held in found["reserved"]]
    assert ends == sorted(ends)
    assert all(start < end for start, end in ends)
    assert found["log"][0] == "BIOS-provided physical RAM map:"


def test_explain(capsys):
    out = boots(capsys, "--explain")
    stages = re.findall(r"(?m)^ *(\d+)\. (\w+): [A-Z].*\.$", out)
    assert [int(number) for number, _ in stages] == list(range(1, len(stages) + 1))
    names = [name for _, name in stages]
    order = ["setup_arch", "sparse_init", "free_area_init", "mem_init", "free_initmem"]
    assert [name for name in names if name in order] == order
    assert re.search(r"(?m)^     takes [\d,]+ frames?: 0x", out)
    given = [int(count.replace(",", "")) for count in re.findall(r"([\d,]+) frames? go to", out)]
    managed = [int(count) for count in re.findall(r"(?m)^ +managed +(\d+)$", out)]
    assert sum(given) == sum(managed)
    assert "Node 0, zone      DMA " in out


def test_quiet(capsys):
    assert re.fullmatch(r"Machine\(1023 MiB in 2 zones, .*\)\n", boots(capsys, "-q"))


@pytest.mark.parametrize("kernel", ["2.6.24", "6.12"])
def test_another_kernel(kernel, capsys):
    found = boots_to_json(capsys, "--kernel", kernel)
    assert found["kernel"] == kernel
    assert sum(zone["managed_pages"] for zone in found["zones"]) == found["totalram_pages"]


# -- what is kept ----------------------------------------------------------------------------------


def test_save(capsys):
    out = boots(capsys, "--memory", "2GiB", "--nodes", "2", "--save", "my.machine")
    machine = open_machine("my.machine")
    machine.validate()
    assert machine.buddyinfo() in out
    assert machine.zoneinfo() in out
    assert machine.origin.owner(0x1000) == "kernel image"
    assert boots(capsys, "--memory", "2GiB", "--nodes", "2", "--save", "again.machine") == out
    again = open_machine("again.machine")
    assert again == machine
    assert again.origin == machine.origin
    assert sorted(path.name for path in Path().iterdir()) == ["again.machine", "my.machine"]


@pytest.mark.parametrize(("name", "head"), [("a.png", b"\x89PNG"), ("a.svg", b"<svg ")])
def test_picture(name, head, capsys):
    boots(capsys, "-q", "--picture", name)
    assert Path(name).read_bytes().startswith(head)


@pytest.mark.parametrize(
    ("option", "name", "reason"),
    [
        ("--save", "no-such-folder/x", "no directory"),
        ("--save", ".", "is a directory"),
        ("--picture", "a.gif", ".png or .svg"),
        ("--picture", "no-such-folder/a.png", "no directory"),
    ],
)
def test_an_output_that_cannot_be_written(option, name, reason, capsys):
    assert reason in refuses(capsys, option, name)


# -- real logs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_real_log_is_equal(name, capsys):
    unpack(name)
    found = boots_to_json(capsys, "--from-log", "dmesg.txt")
    assert set(found) == FIELDS | COMPARISON
    assert found["differences"] == []
    assert found["equal"] == found["compared"] == len(found["figures"]) >= 60
    assert found["kernel"] == kernel_of(name)


def test_a_compressed_log(capsys):
    unpack(BASE)
    log = LOGS / BASE / "dmesg.txt.xz"
    equal, compared = counted(boots(capsys, "--from-log", log, "--zoneinfo", "zoneinfo", "-q"))
    assert equal == compared >= 73


@pytest.mark.parametrize("name", ["zoneinfo", "start.zoneinfo"])
def test_the_zoneinfo_beside_the_log_is_found(name, capsys):
    unpack(BASE, name)
    equal, compared = counted(boots(capsys, "--from-log", "dmesg.txt", "-q"))
    assert equal == compared >= 73


def test_a_log_without_zoneinfo(capsys):
    Path("dmesg.txt.xz").write_bytes((LOGS / BASE / "dmesg.txt.xz").read_bytes())
    found = boots_to_json(capsys, "--from-log", "dmesg.txt.xz")
    assert 26 <= found["equal"] == found["compared"] < 60
    assert "every figure is equal\n" in boots(capsys, "--from-log", "dmesg.txt.xz")


def test_an_altered_figure_is_told(capsys):
    unpack(BASE, "altered")
    text = Path("altered").read_text()
    Path("altered").write_text(text.replace("managed  116479", "managed  116480"))
    given = ("--from-log", "dmesg.txt", "--zoneinfo", "altered")
    equal, compared = counted(boots(capsys, *given, "-q", code=1))
    assert equal == compared - 1
    out = boots(capsys, *given, code=1)
    assert re.search(r"node 0 zone DMA32 managed +116479 +116480\n", out)
    found = boots_to_json(capsys, *given, code=1)
    assert (found["compared"], found["equal"]) == (compared, equal)
    told = {"name": "node 0 zone DMA32 managed", "ours": 116479, "theirs": 116480, "equal": False}
    assert found["differences"] == [told]


def test_a_log_without_its_head(capsys):
    unpack(BASE)
    lines = Path("dmesg.txt").read_text().splitlines(keepends=True)
    Path("dmesg.txt").write_text("".join(lines[12:]))
    assert run(["boot", "--from-log", "dmesg.txt"]) == 0
    out, err = capsys.readouterr()
    assert "every figure is equal" in out
    assert re.search(r"(?m)^physmem: note: .*first lines are lost", err)


def test_a_log_keeps_its_machine(capsys):
    unpack(BASE)
    boots(capsys, "--from-log", "dmesg.txt", "-q", "--save", "my.machine", "--picture", "a.svg")
    machine = open_machine("my.machine")
    assert {zone.name: zone.managed_pages for zone in machine.zones}["DMA32"] == 116479
    assert Path("a.svg").stat().st_size > 0


# -- machines from files ---------------------------------------------------------------------------


def test_a_machine_file(capsys):
    Path("m.toml").write_text('memory = "4GiB"\nnodes = 2\ncpus = 4\n')
    out = boots(capsys, "--machine", "m.toml", "--cmdline", "movablecore=1G")
    assert out == boots(
        capsys, "--memory", "4GiB", "--nodes", "2", "--cpus", "4", "--cmdline", "movablecore=1G"
    )


def test_iomem(capsys):
    Path("iomem").write_text(IOMEM)
    found = boots_to_json(capsys, "--iomem", "iomem", "--cpus", "3")
    assert found["cpu_node"] == [0, 0, 0]
    assert found["memory"]["physical"] == 1048032
    arm = boots_to_json(capsys, "--iomem", "iomem", "--arch", "arm64")
    assert arm["arch"] == "arm64"


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "both"),
    [
        (["--machine", "a", "--iomem", "b"], "--machine and --iomem"),
        (["--machine", "a", "--memory", "1GiB"], "--machine and --memory"),
        (["--machine", "a", "--arch", "i386"], "--machine and --arch"),
        (["--iomem", "a", "--nodes", "2"], "--iomem and --nodes"),
        (["--from-log", "a", "--machine", "b"], "--machine and --from-log"),
        (["--from-log", "a", "--cpus", "2"], "--from-log and --cpus"),
        (["--from-log", "a", "--kernel", "6.1"], "--kernel"),
        (["--from-log", "a", "--cmdline", ""], "--cmdline"),
        (["--zoneinfo", "a"], "--from-log"),
    ],
)
def test_options_that_contradict_each_other(given, both, capsys):
    assert both in refuses(capsys, *given)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--memory", "lots"], "lots"),
        (["--memory", "1MiB"], "give it"),
        (["--memory", "1EiB"], "at most"),
        (["--nodes", "65"], "1 to 64"),
        (["--cpus", "100000"], "1 to 8192"),
        (["--arch", "vax"], "riscv64-sv57"),
        (["--kernel", "5.4"], "2.6.24"),
        (["--kernel", "2.6.24", "--arch", "arm64"], "i386"),
        (["--cmdline", "mem=lots"], "mem=lots"),
        (["--cmdline", "mem=1M"], "memory"),
        (["--memory"], "--help"),
        (["extra"], "--help"),
    ],
)
def test_a_machine_that_cannot_be(given, reason, capsys):
    assert reason in refuses(capsys, *given)


BAD = {
    "empty": b"",
    "binary": bytes(range(128, 256)) * 8,
    "text": b"hello\n",
    "zeros": b"\0" * 4096,
}


@pytest.mark.parametrize("option", ["--from-log", "--machine", "--iomem"])
@pytest.mark.parametrize("name", [*BAD, "missing", "folder"])
def test_a_bad_file(option, name, capsys):
    Path("folder").mkdir()
    for file, data in BAD.items():
        Path(file).write_bytes(data)
    assert name in refuses(capsys, option, name)


@pytest.mark.parametrize("name", [*BAD, "missing", "folder"])
def test_a_bad_zoneinfo(name, capsys):
    unpack(BASE)
    Path("folder").mkdir()
    for file, data in BAD.items():
        Path(file).write_bytes(data)
    refuses(capsys, "--from-log", "dmesg.txt", "--zoneinfo", name)


@pytest.mark.parametrize("keep", [slice(0, 30), slice(300, None)], ids=["begins", "ends"])
def test_a_log_of_which_too_little_is_there(keep, capsys):
    unpack(BASE)
    lines = Path("dmesg.txt").read_text().splitlines(keepends=True)
    Path("part.txt").write_text("".join(lines[keep]))
    assert "dmesg > FILE" in refuses(capsys, "--from-log", "part.txt")


def test_a_compressed_log_that_was_cut_off(capsys):
    data = (LOGS / BASE / "dmesg.txt.xz").read_bytes()
    Path("log.xz").write_bytes(data[: len(data) // 2])
    assert "log.xz" in refuses(capsys, "--from-log", "log.xz")


def test_a_machine_file_with_a_wrong_key(capsys):
    Path("m.toml").write_text('memory = "4GiB"\nnods = 2\n')
    assert "m.toml: line 2: nods" in refuses(capsys, "--machine", "m.toml")


# -- help and completion ---------------------------------------------------------------------------


def test_help():
    listed = CliRunner().invoke(app, ["--help"]).output
    assert re.search(r"(?m)^  boot +Boot a machine", listed)
    done = CliRunner().invoke(app, ["boot", "--help"])
    assert done.exit_code == 0
    assert "--from-log" in done.output


def complete(*words):
    """What bash would offer for the last word."""
    line = " ".join(("physmem", *words))
    asked = {"_PHYSMEM_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": len(words)}
    done = subprocess.run(
        PROGRAM, capture_output=True, text=True, check=True, env=environment(**asked)
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["b"], ["boot"]),
        (["boot", "--arch", "riscv"], [name for name in ARCHS if name.startswith("riscv")]),
        (["boot", "--arch", "x86_64-"], ["x86_64-la57"]),
        (["boot", "--kernel", "6"], ["6.1", "6.12"]),
        (["boot", "--kernel", "2"], ["2.6.24"]),
        (["boot", "--from-log", "d"], ["dmesg.txt"]),
        (["boot", "--machine", "m"], ["m.toml"]),
    ],
    ids=lambda value: "-".join(value).strip("-"),
)
def test_completion(words, offered):
    for name in ("dmesg.txt", "m.toml"):
        Path(name).touch()
    assert complete(*words) == offered


def test_every_architecture_is_offered():
    assert complete("boot", "--arch", "") == list(ARCHS)
