# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem translate` and `physmem pagetable`."""

import json

import pytest

import physmem
from physmem.cli.main import run
from physmem.machine.machine import Machine


@pytest.fixture
def vmcore(tmp_path):
    machine = Machine.build("64MiB")
    table = machine.map_memory()
    table.map(0xFFFFC90000000000, 0x5000, 4096, "PAGE_KERNEL_RO")
    path = tmp_path / "vmcore"
    machine.export_image(path, "vmcore")
    return path


def test_translate(vmcore, capsys):
    assert run(["translate", str(vmcore), "0xffffc90000000123"]) == 0
    out = capsys.readouterr().out
    assert "pgd  entry  402" in out
    assert "p4d  folded" in out
    assert "-> 0x5123  in a page of 4K, kernel r--" in out
    assert run(["translate", str(vmcore), "0xffffc90000000123", "--access", "w"]) == 1
    assert "fault, not writable" in capsys.readouterr().out
    assert run(["translate", str(vmcore), "0xffffc90000001000"]) == 1
    assert "is not present" in capsys.readouterr().out


def test_translate_as_json(vmcore, capsys):
    assert run(["translate", str(vmcore), "0xffff888000001234", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["paddr"], found["size"]) == (0x1234, 2 << 20)
    assert [level["name"] for level in found["levels"]] == ["pgd", "p4d", "pud", "pmd"]


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_translate_draws(vmcore, tmp_path, suffix):
    path = tmp_path / f"way{suffix}"
    assert run(["translate", str(vmcore), "0xffffc90000000123", "--picture", str(path)]) == 0
    data = path.read_bytes()
    assert data.startswith((b"<svg", b"\x89PNG"))
    assert len(data) > 4000


def test_pagetable(vmcore, capsys):
    assert run(["pagetable", str(vmcore)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "0xffff888000000000-0xffff888004000000        64M  rw- ---  G A D       pmd 2M",
        "0xffffc90000000000-0xffffc90000001000         4K  r-- ---  G A D       pte 4K",
    ]
    assert run(["pagetable", str(vmcore), "--start", "0xffffc90000000000", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ranges"][0]["paddr"] == 0x5000


def test_a_machine_made_for_the_occasion(capsys):
    assert run(["pagetable", "64MiB", "--format", "arm64_16k_47"]) == 0
    assert "pmd 32M" in capsys.readouterr().out


def test_the_tables_of_a_saved_machine(tmp_path, capsys):
    file = tmp_path / "fresh.machine"
    physmem.boot("64MiB").save(file)
    assert run(["translate", str(file), "0xffff888000345678"]) == 0
    assert "0xffff888000345678 -> 0x345678" in capsys.readouterr().out
    assert run(["pagetable", str(file), "--start", "0xffffffff80000000"]) == 0
    assert "rwx" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["translate", "no-such-file", "0"], "No such file"),
        (["translate", "64MiB", "zero"], "not a number"),
        (["pagetable", "64MiB", "--format", "vax"], "known are"),
        (["translate", "64MiB", "0", "--picture", "way.gif"], "ends in .png or .svg"),
        (["translate", "64MiB", "0", "--access", "q"], "no such access"),
    ],
)
def test_bad_input(arguments, message, capsys):
    assert run(arguments) == 2
    assert message in capsys.readouterr().err
