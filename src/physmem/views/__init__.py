# SPDX-License-Identifier: GPL-2.0-or-later
"""Read-only pictures of a page allocator state: kernel text, tables, numbers and images.

Every view takes a `physmem.mm.state.State`, so a recorded kernel and a simulated machine are shown
by the same code. Drawing libraries are imported when a picture is made, not before.
"""
