# SPDX-License-Identifier: GPL-2.0-or-later
import resource

import numpy as np
import pytest

from physmem.lib.errors import BadMachineError, BadRequestError
from physmem.lib.ram import HOST_PAGE, Ram

pytestmark = pytest.mark.pure


def _resident_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_a_terabyte_costs_only_what_is_written():
    before = _resident_kib()
    ram = Ram(1 << 40)
    ram.write((1 << 40) - 4, b"last")
    ram.zero(0, 1 << 40)
    assert list(ram.written()) == []
    assert ram.read((1 << 40) - 4, 4) == b"\0\0\0\0"
    assert _resident_kib() - before < 64 << 10


def test_what_an_overlay_holds_is_at_the_physical_address():
    ram, tables = Ram(1 << 30), [np.zeros(5000, np.uint8), np.zeros(9, np.uint8)]
    ram.overlay(0x7001, tables[1])
    ram.overlay(0x3004, tables[0])
    ram.write(0x3000, bytes(range(250)) * 80)
    want = np.frombuffer(bytes(range(250)) * 80, np.uint8)
    assert (tables[0] == want[4:5004]).all()
    assert (tables[1] == want[0x4001:][:9]).all()
    assert ram.read(0x3000, len(want)) == want.tobytes()
    ram.zero(0x3000, len(want) - 1)
    assert [int(table.max()) for table in tables] == [0, 0]
    assert np.flatnonzero(np.frombuffer(ram.read(0x2000, 0x9000), np.uint8)).tolist() == [
        0x1000 + len(want) - 1
    ]
    assert np.shares_memory(ram.view(0x3004, 5000), tables[0])
    with pytest.raises(BadRequestError, match="in 2 arrays"):
        ram.view(0x3000, 20)
    for paddr, size in ((0x3004, 1), (0x3000, 0x5000), (0x7005, 100), (1 << 30, 1)):
        with pytest.raises(BadRequestError, match="array at"):
            ram.overlay(paddr, np.zeros(size, np.uint8))


def test_zero_reaches_part_pages_and_whole_ones_and_nothing_else():
    ram = Ram(8 * HOST_PAGE)
    ram.view(0, ram.size)[:] = 7
    ram.zero(100, 3 * HOST_PAGE)
    left = np.flatnonzero(ram.view(0, ram.size) == 0)
    assert (left[0], left[-1] + 1, len(left)) == (100, 100 + 3 * HOST_PAGE, 3 * HOST_PAGE)


def test_a_copy_is_independent():
    ram = Ram(1 << 30)
    ram.write(12345, b"abc")
    copied = ram.copy()
    ram.write(12345, b"xyz")
    assert (copied.read(12345, 3), copied.size) == (b"abc", 1 << 30)


@pytest.mark.parametrize("size", [0, -5, 1 << 47, 1 << 60])
def test_impossible_sizes(size):
    with pytest.raises(BadMachineError, match="make it smaller"):
        Ram(size)


def test_bytes_outside_are_refused():
    ram = Ram(HOST_PAGE)
    for paddr, size in ((-1, 1), (HOST_PAGE, 1), (0, HOST_PAGE + 1)):
        with pytest.raises(BadRequestError, match="inside memory"):
            ram.view(paddr, size)
