# SPDX-License-Identifier: GPL-2.0-or-later
"""The page on knobs and policies tells the truth: examples and tables."""

import re

from tests.docs.generated import DOCS

from physmem.machine.policy import Policy
from physmem.mm.policy import HOOKS

PAGE = (DOCS / "policies.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?ms)^```python\n(.*?)^```$", PAGE)
MOST_LINES = 20


def test_the_examples_run():
    names = {}
    for block in BLOCKS:
        exec(compile(block, "docs/policies.md", "exec"), names)  # noqa: S102 - our own page
    shown = [value for value in names.values() if isinstance(value, Policy)]
    assert [policy.name for policy in shown] == ["SmallestFirst"]
    assert names["machine"].policy is shown[0]
    names["machine"].validate()


def test_the_policy_is_short():
    made = [block for block in BLOCKS if "@physmem.policy" in block]
    assert len(made) == 1
    assert len(made[0].splitlines()) < MOST_LINES


def test_every_hook_is_in_the_table():
    for name, arguments in HOOKS:
        words = ", ".join(f"{argument}: int" for argument in arguments)
        assert f"| `{name}(zone: Zone, {words}) -> int` |" in PAGE
