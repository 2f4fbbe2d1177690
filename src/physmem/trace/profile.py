# SPDX-License-Identifier: GPL-2.0-or-later
"""Which rules a recorded kernel follows, from what it says its version is."""

import re

PROFILES: tuple[tuple[tuple[int, int], str], ...] = (((0, 0), "6.1"), ((6, 7), "6.12"))
"""First kernel version -> profile, ascending: per-CPU tuning and block rules changed with 6.7."""
EXACT_VERSIONS = {"6.1", "6.12"}
DEFAULT_PROFILE = "6.1"

_VERSION = re.compile(r"(?:Linux version )?(\d+)\.(\d+)[.\d]*")


def profile_of(version: str) -> tuple[str, bool]:
    """Profile for a kernel version string, and whether it is that kernel's own.

    Examples
    --------
    >>> profile_of("Linux version 6.12.107+deb12-cloud-amd64 (...)"), profile_of("6.8.0-31")
    (('6.12', True), ('6.12', False))
    """
    found = _VERSION.match(version.strip())
    if not found:
        return DEFAULT_PROFILE, False
    numbers = (int(found[1]), int(found[2]))
    profile = [name for first, name in PROFILES if first <= numbers][-1]
    return profile, f"{numbers[0]}.{numbers[1]}" in EXACT_VERSIONS
