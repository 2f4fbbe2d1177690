# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages on booting tell the truth: examples, tables, keys of the machine file, references."""

import doctest
import importlib
import lzma
import re
from dataclasses import fields
from pathlib import Path

import pytest
from tests.docs.generated import DOCS, PARTS, pages, parts_of, renewed

import physmem
from physmem.cli.main import run
from physmem.firmware.cmdline import CommandLine
from physmem.firmware.platform import KernelImage
from physmem.firmware.toml import KEYS, RECORDS, parse_toml

ROOT = Path(__file__).parents[2]
LOG = ROOT / "tests/logs/linux-6.1-x86_64-512M"
IOMEM = """\
00001000-0009fbff : System RAM
0009fc00-0009ffff : Reserved
00100000-3ffd9fff : System RAM
  01000000-01e01ef1 : Kernel code
  02000000-02821fff : Kernel rodata
  02a00000-02c45bff : Kernel data
  032ab000-037fffff : Kernel bss
3ffda000-3fffffff : Reserved
"""
MODULES = sorted(
    {
        found.rsplit(".", 1)[0]
        for path in DOCS.glob("api-*.md")
        for found in re.findall(r"(?m)^## `(physmem\.\w+\.[\w.]+)`", path.read_text("utf-8"))
    }
    | {"physmem.firmware.hardware", "physmem.machine.machine", "physmem.machine.reading"}
)


def page(name):
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(text, language):
    """Code blocks, also indented ones."""
    found = re.findall(rf"(?ms)^( *)```{language}\n(.*?)^\1```$", text)
    return [re.sub(rf"(?m)^{indent}", "", block) for indent, block in found]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with the files that the pages talk about."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("dmesg.txt", "zoneinfo"):
        (folder / name).write_bytes(lzma.decompress((LOG / f"{name}.xz").read_bytes()))
    text = (folder / "zoneinfo").read_text()
    altered = text.replace("managed  116479", "managed  116480")
    assert altered != text
    (folder / "altered.zoneinfo").write_text(altered)
    (folder / "iomem.txt").write_text(IOMEM)
    (folder / "machine.toml").write_text(blocks(page("machine-file.md"), "toml")[0])
    return folder


@pytest.fixture(autouse=True)
def _in_that_folder(here, monkeypatch):
    monkeypatch.chdir(here)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("PHYSMEM_DEBUG", raising=False)


def shown():
    """(arguments, output) of every `physmem boot` that the guide shows."""
    for block in blocks(page("boot.md"), "console"):
        for part in re.split(r"(?m)^\$ ", block)[1:]:
            line, _, output = part.partition("\n")
            if line.startswith("physmem "):
                yield line.split()[1:], output


def plain(text):
    """Without blanks at the ends of lines; of counted figures, only how many are not equal."""
    text = re.sub(r"(\d+) of (\d+)", lambda at: f"all but {int(at[2]) - int(at[1])}", text)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


@pytest.mark.parametrize(
    ("arguments", "output"), [*shown()], ids=[" ".join(arguments) for arguments, _ in shown()]
)
def test_a_command_prints_what_is_shown(arguments, output, capsys):
    code = run(arguments)
    assert code == int("altered.zoneinfo" in arguments)
    got = plain(capsys.readouterr().out)
    if output:
        same = doctest.OutputChecker().check_output(plain(output), got, doctest.ELLIPSIS)
        assert same, got


def commands_to_try():
    found = [
        part
        for line in page("boot.md").splitlines()
        if line.startswith("| `physmem")
        for part in re.findall(r"`physmem (boot [^`]+)`", line)
    ]
    return [line.split() for line in found]


@pytest.mark.parametrize("arguments", commands_to_try(), ids=" ".join)
def test_a_command_to_try_boots(arguments, capsys):
    assert run([*arguments, "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("Machine(")


def test_there_are_commands_to_try():
    assert len(commands_to_try()) >= 8


def test_what_the_commands_to_try_are_about(capsys):
    """The right column of that table."""
    run(["boot", "--arch", "i386", "--memory", "2GiB"])
    assert "Node 0, zone  HighMem" in capsys.readouterr().out
    run(["boot", "--cmdline", "memblock=debug"])
    assert "memblock_reserve: [0x" in capsys.readouterr().out
    run(["boot", "--arch", "arm64"])
    assert "cma: Reserved 64 MiB" in capsys.readouterr().out
    run(["boot", "--cmdline", "movablecore=64G"])
    assert "Node 0, zone  Movable      " not in capsys.readouterr().out


def test_the_examples_of_the_guide():
    """One session from the first example to the last."""
    text = "\n".join(blocks(page("boot.md"), "pycon"))
    test = doctest.DocTestParser().get_doctest(text, {}, "boot.md", "boot.md", 0)
    out = []
    failed, tried = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=out.append)
    assert tried >= 25
    assert failed == 0, "".join(out)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_references(name):
    known = {"Machine": physmem.Machine}  # an example of a base class uses it
    assert doctest.testmod(importlib.import_module(name), extraglobs=known).failed == 0


@pytest.mark.parametrize("text", blocks(page("machine-file.md"), "toml"))
def test_a_machine_file_boots(text):
    machine = physmem.boot(hardware=parse_toml(text))
    machine.validate()


def keys_of(section):
    """Keys in the table below a heading of the page on machine files."""
    part = re.search(rf"(?ms)^### {section}$(.*?)(?=^##|\Z)", page("machine-file.md"))[1]
    return re.findall(r"(?m)^\| `(\w+)` ", part)


def test_every_key_of_a_machine_file_is_there():
    assert sorted(keys_of("Top level")) == sorted(KEYS)


@pytest.mark.parametrize("name", [*RECORDS, "image"])
def test_every_key_of_a_table_is_there(name):
    known = {key: list(names) for key, (_, names) in RECORDS.items()}
    known["image"] = [item.name for item in fields(KernelImage)]
    if name in {"acpi_tables", "setup_data", "mp_table"}:  # told in one line of the first table
        assert known[name] == ["start", "size", "name"]
    else:
        assert keys_of(name) == known[name]


def test_every_option_of_the_kernel_is_there():
    part = page("cli-boot.md").split("## The kernel's command line")[1].split("## Output")[0]
    named = {name.rstrip("=").split("=")[0] for name in re.findall(r"`([\w=-]+)`", part)}
    followed = {item.name for item in fields(CommandLine)} - {
        "text",
        "options",
        "unknown",
        "mem_nopentium",
        "numa_fake",
        "memblock_debug",
    }
    assert followed - named == set()


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_generated_parts_are_up_to_date(path):
    text = path.read_text(encoding="utf-8")
    assert renewed(text) == text, "run: python -m tests.docs.generated"


def test_every_part_is_on_one_page():
    named = [name for path in pages() for name in parts_of(path.read_text(encoding="utf-8"))]
    assert sorted(named) == sorted(PARTS)


def test_the_json_keys_are_documented():
    booted = physmem.boot.start.boot_hardware(physmem.Hardware.of())
    text = page("cli-boot.md")
    told = booted.to_dict()
    told |= {"compared": 0, "equal": 0, "differences": 0, "figures": 0, "not_compared": 0}
    told |= told["zones"][0] | told["memory"] | told["stages"][0] | told["reserved"][0]
    assert [key for key in told if f"`{key}`" not in text] == []
