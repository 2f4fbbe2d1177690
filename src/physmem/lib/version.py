# SPDX-License-Identifier: GPL-2.0-or-later
"""Version of physmem, for layers that say from what a result was computed."""

__version__ = "0.1.0"
