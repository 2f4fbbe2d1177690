# SPDX-License-Identifier: GPL-2.0-or-later
"""Help, version, completion, exit codes: what every command has in common."""

import doctest
import errno
import importlib
import os
import pkgutil
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from tests.cli_fixtures import PROGRAM, environment, program
from typer.testing import CliRunner

import physmem.cli
from physmem import __version__
from physmem.cli import app as application
from physmem.cli import main as entry
from physmem.cli.options import complete_capture, complete_file, complete_folder
from physmem.cli.output import has_colour
from physmem.cli.progress import Bar
from physmem.lib.errors import BadInputError

COMMANDS = ("demo", "import", "info", "picture", "proc", "replay", "sweep", "tune", "warm")
ROOT = Path(__file__).parents[2]
MODULES = [module.name for module in pkgutil.iter_modules(physmem.cli.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, capsys):
    module = importlib.import_module(f"physmem.cli.{name}")
    assert doctest.testmod(module).failed == 0
    capsys.readouterr()


def test_help_names_every_command():
    done = CliRunner().invoke(application.app, ["--help"])
    assert done.exit_code == 0
    for command in COMMANDS:
        assert re.search(rf"(?m)^  {command} ", done.output), command


def test_no_command_is_help():
    done = CliRunner().invoke(application.app, [])
    assert done.exit_code == 0
    assert "Usage: " in done.output


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command):
    done = CliRunner().invoke(application.app, [command, "--help"])
    assert done.exit_code == 0
    assert "--help" in done.output


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_documented(command):
    texts = [ROOT / "README.md", ROOT / "docs/quickstart.md"]
    assert any(f"physmem {command}" in path.read_text(encoding="utf-8") for path in texts)


def test_version():
    done = CliRunner().invoke(application.app, ["--version"])
    assert done.output == f"physmem {__version__}\n"


def test_completion_can_be_installed():
    # not by --show-completion: it asks which shell it was started from, and CI may have none
    words = {"_PHYSMEM_COMPLETE": "complete_bash", "COMP_WORDS": "physmem re", "COMP_CWORD": "1"}
    done = subprocess.run(
        PROGRAM, env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["replay"]
    assert "--install-completion" in CliRunner().invoke(application.app, ["--help"]).output


def test_the_shell_completes_files(tmp_path):
    for name in ("a.physmem", "b.txt", ".hidden.physmem"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    here = f"{tmp_path}/"
    assert complete_capture(here) == [f"{here}a.physmem", f"{here}folder/"]
    assert complete_file(here + "b") == [f"{here}b.txt"]
    assert complete_folder(here) == [f"{here}folder/"]
    assert complete_capture(here + ".h") == [f"{here}.hidden.physmem"]


def test_completion_as_the_shell_asks(tmp_path):
    (tmp_path / "my.physmem").touch()
    line = "physmem replay my"
    asked = {"_PHYSMEM_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": "2"}
    done = subprocess.run(
        PROGRAM, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment(**asked)
    )
    assert done.stdout.split() == ["my.physmem"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["replay"],
        ["replay", "--no-such-option", "a"],
        ["proc", "a.physmem", "no-such-view"],
        ["replay", "a", "b"],
        ["import", "--output"],
    ],
)
def test_wrong_arguments(arguments, capsys):
    assert entry.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"physmem: .* \(try 'physmem.* --help'\)\n", err), err


def _raising(monkeypatch, error):
    def fail(_arguments):
        raise error

    monkeypatch.setattr(entry, "_dispatch", fail)
    monkeypatch.delenv("PHYSMEM_DEBUG", raising=False)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (BadInputError("a: bad\nthing"), 2, "physmem: a: bad thing\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "x"),
            2,
            "physmem: x: No space left on device\n",
        ),
        (OSError("odd"), 2, "physmem: odd\n"),
        (KeyboardInterrupt(), 130, "physmem: interrupted\n"),
        (typer.Abort(), 130, "physmem: interrupted\n"),
        (MemoryError(), 2, "physmem: not enough memory for this input\n"),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
            2,
            "physmem: an input is damaged: bytes that are no text (invalid start byte)\n",
        ),
        (BrokenPipeError(), 141, ""),
        (SystemExit(143), 143, "physmem: terminated\n"),
    ],
)
def test_an_error_is_one_line(error, code, text, monkeypatch, capsys):
    _raising(monkeypatch, error)
    assert entry.run([]) == code
    assert capsys.readouterr().err == text


def test_a_bug_is_one_line_and_a_traceback_on_demand(monkeypatch, capsys):
    _raising(monkeypatch, ZeroDivisionError("by 0"))
    assert entry.run([]) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "internal error" in err
    assert "report" in err
    monkeypatch.setenv("PHYSMEM_DEBUG", "1")
    assert entry.run([]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_output_that_nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*PROGRAM, "--help"], stdout=writer, stderr=subprocess.PIPE, check=False, env=environment()
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_output_onto_a_full_disk():
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, "--help"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (2, b"physmem: No space left on device\n")


def test_colours_only_on_a_terminal(monkeypatch):
    class Terminal:
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert has_colour(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not has_colour(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not has_colour(Terminal())


def test_a_bar_is_silent_without_a_terminal(capsys):
    with Bar("work", "things") as bar:
        bar(1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal():
    program = (
        "import time; from physmem.cli.progress import Bar\n"
        "with Bar('work', 'things') as bar:\n"
        "    for done in range(4): bar(1000 * done, 4000); time.sleep(0.1)\n"
    )
    main, other = os.openpty()
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=other, check=False
    )
    os.close(other)
    shown = os.read(main, 1 << 16).decode()
    os.close(main)
    assert (done.returncode, done.stdout) == (0, b"")
    assert "of 4,000 things" in shown


def test_help_takes_less_than_0_3_s():
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        assert program("--help").returncode == 0
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3, seconds


def test_help_loads_nothing_heavy():
    program = (
        "import sys; from physmem.cli.main import run; run(['--help']);"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert loaded & {"numpy", "numba", "pyarrow", "PIL", "rich", "msgspec"} == set()


def test_signals_are_as_before():
    before = signal.getsignal(signal.SIGTERM)
    assert entry.run(["--version"]) == 0
    assert signal.getsignal(signal.SIGTERM) == before
