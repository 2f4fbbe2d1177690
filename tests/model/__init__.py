# SPDX-License-Identifier: GPL-2.0-or-later
"""Slow, obvious twins of the page allocator, for use as oracles in tests."""

from .features import V2_6_24, V61, V61_CMA, V61_I386, V612, Features
from .free_area import ZoneSpec
from .page_alloc import Machine
from .zone import Zone

__all__ = [
    "V2_6_24",
    "V61",
    "V61_CMA",
    "V61_I386",
    "V612",
    "Features",
    "Machine",
    "Zone",
    "ZoneSpec",
]
