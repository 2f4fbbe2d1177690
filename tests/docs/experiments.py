# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of all experiments at their defaults: kept beside the tests, shown in the documentation.

`python -m tests.docs.experiments` computes them anew (a minute or two); a slow test compares.
"""

import json
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


if __name__ == "__main__":
    found = {name: kept(name) for name in EXPERIMENTS}
    PATH.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
