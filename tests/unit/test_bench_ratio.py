# SPDX-License-Identifier: GPL-2.0-or-later
"""The compiled kernels against plain C: the same results to the last byte, in about the same time.

The bound is generous, for others may use the processor meanwhile; `bench/run.py --gate` is not.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from physmem.lib.jit import PURE

ROOT = Path(__file__).parents[2]
MOST_RATIO = 2.0
ATTEMPTS = 3

pytestmark = pytest.mark.slow


def compiler():
    """First word of $CC, or one of the usual names; None: there is no C compiler."""
    chosen = os.environ.get("CC")
    names = shlex.split(chosen)[:1] if chosen else ["cc", "gcc", "clang"]
    return next(filter(None, map(shutil.which, names)), None)


def measure(tmp_path):
    """Figures of one quick run; the run itself fails when C and kernels differ in a byte."""
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "run.py"), "--quick", "--json", str(figures)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(figures.read_text(encoding="utf-8"))


@pytest.mark.skipif(PURE, reason="PHYSMEM_PURE is set: nothing is compiled")
@pytest.mark.skipif(compiler() is None, reason="no C compiler (set CC or install gcc)")
def test_kernels_agree_with_c_and_are_about_as_fast(tmp_path):
    ratios = []
    for _ in range(ATTEMPTS):
        figures = measure(tmp_path)
        assert figures["events"] > 1_000_000
        assert figures["requests"] > 0
        assert int(figures["digest"], 16) > 0
        ratios.append(figures["ratio"])
        if ratios[-1] <= MOST_RATIO:
            return
    pytest.fail(f"{ATTEMPTS} times more than {MOST_RATIO} times the time of C: {ratios}")
