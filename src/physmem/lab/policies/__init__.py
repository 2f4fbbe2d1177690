# SPDX-License-Identifier: GPL-2.0-or-later
"""Policies to begin with: each is an experiment that kernel developers have proposed.

physmem whatif CAPTURE --set policy=physmem.lab.policies:FreeToTail
"""

from physmem.lab.policies.everything_movable import EverythingMovable
from physmem.lab.policies.free_to_tail import FreeToTail
from physmem.lab.policies.no_instant_reuse import NoInstantReuse
from physmem.lab.policies.smallest_first import SmallestFirst

__all__ = ["EverythingMovable", "FreeToTail", "NoInstantReuse", "SmallestFirst"]
