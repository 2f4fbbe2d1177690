# SPDX-License-Identifier: GPL-2.0-or-later
"""The README tells the truth: its two commands, and every command line that the texts show."""

import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

DEMO = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/physmem demo"
TEST = "make test"


def _blocks(text, language):
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", text)


def _command_lines(text):
    """Every `physmem ...` in shell blocks and in inline code."""
    shell = [
        line
        for kind in ("sh", "console")
        for block in _blocks(text, kind)
        for line in block.splitlines()
    ]
    prose = re.sub(r"(?ms)^```.*?^```$", "", text)
    inline = re.findall(r"`([^`\n]+)`", prose)
    parts = [
        part.strip().removeprefix("$ ")
        for line in shell + inline
        for part in re.split(r"&&|\||;", line)
    ]
    return [part for part in parts if re.match(r"(\.venv/bin/)?physmem(\s|$)", part)]


def _used():
    """(text, command, options) as the texts name them."""
    for path in TEXTS:
        for line in _command_lines(path.read_text(encoding="utf-8")):
            words = line.split()[1:]
            command = [word for word in words[:1] if re.fullmatch(r"[a-z][a-z-]*", word)]
            options = [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]
            yield path.name, tuple(command), tuple(options)


def _physmem(*arguments):
    program = "import sys; sys.argv[0] = 'physmem'; from physmem.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    )


def test_the_two_commands():
    # .ci/run executes the first two blocks.
    assert _blocks(README, "sh") == [f"{DEMO}\n", f"{TEST}\n"]


def test_make_has_what_the_texts_name():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([a-z]+):.*## ", makefile))
    texts = [*TEXTS, ROOT / "CONTRIBUTING.md"]
    named = {
        target
        for path in texts
        for target in re.findall(r"`make ([a-z]+)", path.read_text(encoding="utf-8"))
    }
    assert named <= targets


def test_help():
    done = _physmem("--help")
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout


def test_the_texts_name_commands():
    commands = {command for name, command, _ in _used() if name == "README.md"}
    assert {("demo",), ("import",), ("replay",)} <= commands


@pytest.mark.parametrize(("name", "command", "options"), sorted(set(_used())))
def test_a_named_command_exists(name, command, options):
    done = _physmem(*command, "--help")
    assert done.returncode == 0, f"{name}: {done.stderr}"
    missing = [option for option in options if option not in done.stdout]
    assert missing == [], f"{name}: physmem {' '.join(command)} has no {missing}"


@pytest.mark.slow
def test_the_python_example_runs(tmp_path):
    demo = files("physmem") / "data" / "demo.physmem"
    (tmp_path / "my.physmem").write_bytes(demo.read_bytes())
    blocks = _blocks(README, "python")
    assert blocks
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
