# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that a what-if runs: to be compiled before."""

from collections.abc import Callable
from typing import Any

from physmem.boot.start import BOOT_KERNELS
from physmem.lab.census import census
from physmem.lab.place import place, place_early
from physmem.lab.slots import assign_slots, settle
from physmem.replay.lowering import lower, number_flows, seen_decays

KERNELS: tuple[Callable[..., Any], ...] = (
    *(place, lower, assign_slots, place_early),
    *(census, settle, number_flows, seen_decays),
    *BOOT_KERNELS,
)
"""Those that take longest to compile come first."""
