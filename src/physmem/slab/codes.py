# SPDX-License-Identifier: GPL-2.0-or-later
"""Codes that kernels of both allocators return."""

CHECK_FAILED = 99
"""A check of a debug cache found something: `error` of the record tells what."""
