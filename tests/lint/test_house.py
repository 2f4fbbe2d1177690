# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules of the house that no ready-made linter knows; CONTRIBUTING.md names them."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPDX = "# SPDX-License-Identifier: GPL-2.0-or-later"
MAX_LINES = 600
UNTRACKED_FOLDERS = {"site", "build", "dist", "recordings", "htmlcov", "__pycache__"}


def _project_files():
    """Files of the project: git's list (with new files), or all but builds outside of git."""
    asked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode == 0 and asked.stdout:
        paths = [ROOT / name for name in asked.stdout.split("\0") if name]
        return sorted({path for path in paths if path.is_file()})
    found = []
    for folder, below, names in os.walk(ROOT):
        below[:] = [
            name
            for name in below
            if name not in UNTRACKED_FOLDERS
            and not name.endswith(".egg-info")
            and (not name.startswith(".") or name == ".ci")
        ]
        found += [Path(folder) / name for name in names]
    return sorted(found)


FILES = _project_files()
PYTHON = [path for path in FILES if path.suffix == ".py"]
SOURCES = [path for path in PYTHON if path.is_relative_to(ROOT / "src")]


def _name(path):
    return path.relative_to(ROOT).as_posix()


def _text(path):
    """Text of a file, or None for a binary one."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def _lines_with(pattern, paths):
    found = []
    for path in paths:
        text = _text(path)
        if text is None or not re.search(pattern, text):
            continue
        found += [
            f"{_name(path)}:{number}: {line.strip()[:80]}"
            for number, line in enumerate(text.splitlines(), 1)
            if re.search(pattern, line)
        ]
    return found


def test_the_project_was_found():
    names = {_name(path) for path in FILES}
    assert {"pyproject.toml", "requirements.lock", "tests/lint/test_house.py"} <= names
    assert SOURCES


@pytest.mark.parametrize("path", PYTHON, ids=_name)
def test_a_file_is_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{lines} lines: one concept, one small file (one-concept)"


@pytest.mark.parametrize("path", PYTHON, ids=_name)
def test_a_file_names_its_licence_first(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    if lines and lines[0].startswith("#!"):
        del lines[0]
    assert lines[:1] == [SPDX]


def test_no_path_of_a_machine():
    assert _lines_with(r"(?<![\w.~}])/(work|root|home)/", FILES) == []


def test_no_package_registry():
    named = [path for path in FILES if path.suffix in {".lock", ".toml", ".txt", ".in", ".cfg"}]
    pattern = r"(?i)https?:|file:|index|find-links|pypi|pythonhosted|\"resolved\"|registry\s*="
    assert _lines_with(pattern, named) == []


def test_the_lock_is_hashed_and_pinned():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert [block for block in blocks if "==" not in block or "--hash=sha256:" not in block] == []


def test_the_lock_holds_every_requirement():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = set(re.findall(r"(?m)^([a-z0-9-]+)==", lock))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = project["build-system"]["requires"] + project["project"]["dependencies"]
    tools = (ROOT / "requirements.in").read_text(encoding="utf-8")
    wanted += [line for line in tools.splitlines() if line and not line.startswith("#")]
    names = {re.match(r"[A-Za-z0-9-]+", line).group().lower() for line in wanted}
    assert names - locked == set()


def test_no_unfinished_code():
    assert _lines_with(r"\b(NotImplementedError|TODO|FIXME|XXX)\b", SOURCES) == []


def test_every_ignored_rule_has_a_reason():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ruff = text[text.index("[tool.ruff.lint]") : text.index("[tool.mypy]")]
    entries = re.findall(r'(?m)^    "[A-Z]+[0-9]*",.*$', ruff)
    assert entries
    assert [entry for entry in entries if not re.search(r"# \S", entry)] == []


def test_every_suppression_has_a_reason():
    pattern = (
        r"#\s*(noqa|type: ignore|pragma: no cover)\b(:?\s*[A-Z]+[0-9]+[ ,]*)*(\[[\w, -]*\])?\s*$"
    )
    assert _lines_with(pattern, SOURCES) == []


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_no_file_is_large(path):
    assert path.stat().st_size <= 4 << 20, "over 4 MiB: keep it out of the repository"
