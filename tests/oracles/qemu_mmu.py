# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's processors as MMUs: a program of a few words follows our tables in our own bytes.

The guest's RAM is a file. We put tables, program and queries there, the guest answers each query in
place and stops the machine. It asks on arm64 with the AT instruction or by real accesses, on
riscv64 by accesses with the privilege of the supervisor or of a user. Nothing is compiled.

Opt-in: PHYSMEM_QEMU=1 and qemu-system-aarch64, qemu-system-riscv64 of version 7 or later.
"""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

RAM_BYTES = 2 << 30
CODE, TABLES, DATA = 0x200000, 0x8000000, 0x10000000
"""Offsets in the guest's RAM: program and queries, page tables, memory to map."""
DEVICE_TREE = 0xBFE00000
"""Here QEMU puts the device tree of riscv64 into 2 GiB of RAM."""
PROBES = (0x200, 0x10000)  # of the program: parameters (riscv64), queries
AT_READ, AT_WRITE, AT_USER_READ, AT_USER_WRITE, LOAD, STORE, RUN = range(7)
"""Queries of arm64."""
SUPERVISOR = 16
"""Added to LOAD - LOAD, STORE - LOAD, RUN - LOAD: a query of riscv64 for the kernel's level."""
HA_HD = 3 << 39
"""TCR_EL1: the hardware manages accessed and dirty bits."""

# fmt: off
_ARM64 = (
    # start: x0.. = the parameters at +0x100; set up translation
    0x1000080A, 0xA9400540, 0xA9410D42, 0xA9421544, 0xA9435554,
    0xD5182040, 0xD518A201, 0xD5182002, 0xD5182023, 0xD518C005,  # TCR, MAIR, TTBR0, TTBR1, VBAR
    0xD5033FDF, 0xD508871F, 0xD5033F9F, 0xD5033FDF, 0xD5181004, 0xD5033FDF,  # tlbi; SCTLR
    # loop: x1 = address, x2 = kind, x5 = value; jump to ops + 8 * kind
    0xB4000395, 0xA9400A81, 0xD2800000, 0xD2800003, 0xF9400A85, 0x10000064, 0x8B020C84, 0xD61F0080,
    # ops: at s1e1r, s1e1w, s1e0r, s1e0w; ldr x0, [x1]; str x5, [x1]; blr x1
    0xD5087801, 0x1400000D, 0xD5087821, 0x1400000B, 0xD5087841, 0x14000009, 0xD5087861, 0x14000007,
    0xF9400020, 0x14000007, 0xF9000025, 0x14000005, 0xD63F0020, 0x14000003,
    # x0 = PAR_EL1; kept: the answer is x0, x3; next query
    0xD5033FDF, 0xD5387400, 0xA9010E80, 0x91008294, 0xD10006B5, 0x17FFFFE5,
    # done: semihosting call "exit"
    0xD5033F9F, 0x100000A1, 0x52800300, 0xD45E0000, 0x17FFFFFC, 0xD503201F, 0x20026, 0, 0, 0,
)
_ARM64_VECTOR = (  # x0 = ESR_EL1, x3 = ~FAR_EL1; go on at `kept`
    0xD5385200, 0xD5386003, 0xAA2303E3, 0x10FFB4A4, 0xD5184024, 0xD69F03E0,
)
_RISCV64 = (
    # start: s0 = parameters at +0x200; memory protection off, satp, queries, trap handler
    0x00000417, 0x20040413, 0xFFF00293, 0x3B029073, 0x01F00293, 0x3A029073, 0x00043283, 0x18029073,
    0x12000073, 0x00843483, 0x01043903, 0x01843983, 0x00000297, 0x07C28293, 0x30529073,
    # loop: a1 = address, a2 = kind, a5 = value; MPP by bit 4 of the kind
    0x08090A63, 0x0004B583, 0x0084B603, 0x0184B783, 0x00000513, 0x00000693, 0x00022337, 0x8003031B,
    0x30033073, 0x01067313, 0x00731313, 0x00031463, 0x0080006F, 0x30032073,
    0x00767613, 0x000203B7, 0xFFE60E13, 0x020E0263, 0xFFF60E13, 0x000E0863,
    # load; store; run: with MPRV, or by mret to the address
    0x3003A073, 0x0005B503, 0x0200006F, 0x3003A073, 0x00F5B023, 0x0140006F, 0x34159073, 0x30200073,
    # handler: a3 = mcause; kept: the answer is a0, a3; next query
    0x342026F3, 0x34302773, 0x000203B7, 0x3003B073, 0x00A4B823, 0x00D4BC23, 0x02048493, 0xFFF90913,
    0xF71FF06F,
    # done: power off by the test device
    0x0FF0000F, 0x00100337, 0x000053B7, 0x5553839B, 0x00732023, 0xFEDFF06F,
)
# fmt: on
ARM64_RET, RISCV64_ECALL = 0xD65F03C0, 0x00000073
"""What a page must hold to be run."""


def binary(name):
    """Path of a QEMU, or None where it is not asked for or missing."""
    wanted = os.environ.get("PHYSMEM_QEMU") == "1"
    return shutil.which(f"qemu-system-{name}") if wanted else None


def base(name):
    """Physical address of the guest's RAM, by the name of a format."""
    return 0x40000000 if name.startswith("arm64") else 0x80000000


def identity(table, *, user_tables=False):
    """Map the program and its queries where they are (arm64 runs with translation on)."""
    start = base(table.format.name) + CODE
    row, fmt = table.record[0], table.format
    usual = int(row["table_bits"])
    row["table_bits"] = fmt.soft.kernel_table  # through a user's tables the kernel runs nothing
    table.map(start, start, TABLES - CODE, "PAGE_KERNEL_EXEC", largest=fmt.page_size)
    if user_tables:
        row["table_bits"] = usual


class Guest:
    """A machine whose processor has a page table of ours.

    Parameters
    ----------
    table : PageTable
        Its tables lie in [base + TABLES, base + DATA).
    path : Path
        File for the guest's memory.
    """

    def __init__(self, table, path):
        self.table, self.path = table, Path(path)
        self.name = table.format.name
        self.base = base(self.name)
        with self.path.open("wb") as file:
            file.truncate(RAM_BYTES)
        self.bytes = np.memmap(self.path, np.uint8, "r+", shape=(RAM_BYTES,))
        self.words = self.bytes.view(np.int64)
        for start, end in table.ram.written():
            low, high = max(start, self.base), min(end, self.base + RAM_BYTES)
            if low < high:
                data = np.frombuffer(table.ram.read(low, high - low), np.uint8)
                self.bytes[low - self.base : high - self.base] = data

    def put(self, offset, words):
        """Store words of 32 bits."""
        data = np.array(words, np.uint32).view(np.uint8)
        self.bytes[offset : offset + len(data)] = data

    def ask(self, queries, flags=0):
        """Answer queries: rows of (address, kind, value in 2 words); two words each.

        arm64: PAR_EL1, 0 for AT kinds; value, 0 for accesses; ESR_EL1, ~FAR_EL1 for those that
        fault. riscv64: value or 0, mcause or 0.
        """
        rows = np.array(queries, np.uint64)
        at = CODE + PROBES[1]
        self.bytes[at : at + rows.nbytes] = rows.reshape(-1).view(np.uint8)
        if self.name.startswith("arm64"):
            command = self._arm64(at, len(rows), flags)
        else:
            command = self._riscv64(at, len(rows))
        ram = f"memory-backend-file,id=ram,size={RAM_BYTES},mem-path={self.path},share=on"
        devices = ["-object", ram, "-display", "none", "-serial", "none", "-monitor", "none"]
        done = subprocess.run(
            [*command, "-nodefaults", "-m", str(RAM_BYTES >> 20), *devices],
            check=False,
            timeout=40,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return self.bytes[at : at + rows.nbytes].view(np.uint64).reshape(-1, 4)[:, 2:].copy()

    def _arm64(self, at, count, flags):
        fmt = self.table.format
        tg0, tg1 = {12: (0, 2), 14: (2, 1), 16: (1, 3)}[fmt.page_shift]
        size = 64 - fmt.va_bits
        tcr = size | size << 16 | tg0 << 14 | tg1 << 30 | 5 << 8 | 3 << 12 | 5 << 24 | 3 << 28
        tcr |= (6 if fmt.pa_bits == 52 else 5) << 32 | flags
        if fmt.pa_bits == 52 and fmt.page_shift < 16:
            tcr |= 1 << 59  # DS: LPA2
        code = self.base + CODE
        self.put(CODE, _ARM64)
        self.put(CODE + 0xA00, _ARM64_VECTOR)
        sctlr = 0x30D01805
        roots = self.table.root, self.table.root_high
        params = np.array(
            [tcr, 0xFF, *roots, sctlr, code + 0x800, self.base + at, count], np.uint64
        )
        self.bytes[CODE + 0x100 : CODE + 0x140] = params.view(np.uint8)
        loader = f"loader,addr={code:#x},cpu-num=0"
        machine = ["-M", "virt,memory-backend=ram", "-cpu", "max"]
        return [binary("aarch64"), *machine, "-semihosting", "-device", loader]

    def _riscv64(self, at, count):
        mode = {39: 8, 48: 9, 57: 10}[self.table.format.va_bits]
        self.put(CODE, _RISCV64)
        params = [mode << 60 | self.table.root >> 12, self.base + at, count, 0]
        self.bytes[CODE + 0x200 : CODE + 0x220] = np.array(params, np.uint64).view(np.uint8)
        self.put(0, (0x00000297 | CODE, 0x00028067))  # auipc t0, CODE >> 12; jr t0
        machine = ["-M", "virt,memory-backend=ram", "-bios", "none"]
        return [binary("riscv64"), *machine, "-cpu", "rv64,svnapot=true,svpbmt=true"]

    def tables(self):
        """Bytes of all tables now."""
        return bytes(self.bytes[TABLES:DATA])
