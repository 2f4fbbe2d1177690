# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of all experiments at their defaults: kept beside the tests, shown in the documentation.

`python -m tests.docs.experiments` computes them anew (a minute or two), or some by name;
a slow test compares.
"""

import json
import sys
from pathlib import Path

from physmem.experiments import EXPERIMENTS, run

PATH = Path(__file__).with_name("experiments.json")
KEPT = ("figures", "verdict", "params", "seed", "operations")


def kept(name):
    """What is kept of a report."""
    report = run(name).to_dict()
    return {key: report[key] for key in KEPT}


def stored():
    """What is kept of all reports."""
    return json.loads(PATH.read_text(encoding="utf-8"))


def renew(names):
    """Compute what is kept of some reports anew; each is written when it is there."""
    for name in names:
        found = (stored() if PATH.exists() else {}) | {name: kept(name)}
        ordered = {each: found[each] for each in EXPERIMENTS if each in found}
        PATH.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    renew(sys.argv[1:] or list(EXPERIMENTS))
