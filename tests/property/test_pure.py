# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiled or plain Python: the same requests, the same frames, events and lists."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.property.digest import digest
from tests.property.shapes import SHAPES

from physmem.lib.jit import PURE

pytestmark = [pytest.mark.pure, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def other_mode():
    """Digests from a process in the other mode."""
    env = dict(os.environ) | {"PHYSMEM_PURE": "0" if PURE else "1"}
    command = [sys.executable, "-m", "tests.property.digest"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["pure"] != PURE
    return told["digests"]


@pytest.mark.parametrize("name", SHAPES)
def test_both_modes_do_the_same(name, other_mode):
    ours = digest(name)
    assert ours == other_mode[name]
    assert ours[1] > 0
