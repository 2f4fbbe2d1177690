# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiled or plain Python: the same experiment, the same report to the byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from physmem.experiments import run
from physmem.lib.jit import PURE

pytestmark = [pytest.mark.pure, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
CASES = [
    ("llfree-frag", {"memory": "128MiB", "rounds": 2}),
    ("llfree-frag", {"memory": "128MiB", "rounds": 1, "order": "single", "kernel": "6.12"}),
    ("gorman", {"memory": "128MiB", "turnover": 0.1}),
    ("meta-7-34", {"memory": "128MiB", "turnover": 0.1, "swing": 0.05}),
    ("fragmenters", {"memory": "64MiB", "preset": "moderate"}),
    ("pcp-stranding", {"memory": "64MiB", "cpus": 2, "used": 500}),
]
_PROGRAM = """
import json, sys
from physmem.experiments import run
from physmem.lib.jit import PURE
reports = [run(name, params, 5).to_dict() for name, params in json.load(sys.stdin)]
print(json.dumps({"pure": PURE, "reports": reports}))
"""


@pytest.fixture(scope="module")
def other_mode():
    env = dict(os.environ) | {"PHYSMEM_PURE": "0" if PURE else "1"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=json.dumps(CASES),
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["pure"] != PURE
    return told["reports"]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_both_modes_give_the_same_report(number, other_mode):
    name, params = CASES[number]
    assert json.dumps(run(name, params, 5).to_dict()) == json.dumps(other_mode[number])
