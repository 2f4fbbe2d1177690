# SPDX-License-Identifier: GPL-2.0-or-later
"""Columns of a capture that a replay reads. Light to import: reading begins before the kernels."""

from physmem.machine.profiles import PROFILES, feature_bits
from physmem.mm.features import PCP_AUTO_TUNING
from physmem.trace.info import CaptureInfo
from physmem.trace.profile import DEFAULT_PROFILE, profile_of

COLUMNS = (
    "line",
    "cpu",
    "pid",
    "context",
    "preempt",
    "kind",
    "pfn",
    "order",
    "migratetype",
    "gfp",
    "arg0",
    "arg1",
)
"""Columns that every replay reads."""


def profile_for(info: CaptureInfo) -> str:
    """Profile of `physmem.machine.profiles` that a capture is replayed with.

    The one that its import chose; where this version does not have it, the nearest that it has.
    """
    if info.machine.profile in PROFILES:
        return info.machine.profile
    nearest, _ = profile_of(info.machine.kernel)
    return nearest if nearest in PROFILES else DEFAULT_PROFILE


def replay_columns(info: CaptureInfo) -> tuple[str, ...]:
    """Columns for the replay of one capture: more where per-CPU lists change with time."""
    if feature_bits(profile_for(info)) & PCP_AUTO_TUNING:
        return (*COLUMNS, *(name for name in ("ts", "comm") if name in info.columns))
    return COLUMNS
