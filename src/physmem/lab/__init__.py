# SPDX-License-Identifier: GPL-2.0-or-later
"""What if: a recorded workload on another machine, under another policy."""
