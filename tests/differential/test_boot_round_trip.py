# SPDX-License-Identifier: GPL-2.0-or-later
"""A start-up's own log, read back: every figure, every zone and every call must come out again.

The first start-up works its calls out by formula, the second one takes them from the log and
searches for each place itself: they share the zones, but not where the numbers come from.
"""

import numpy as np
import pytest

from physmem.boot.compare_log import compare_log
from physmem.boot.from_log import boot_from_log
from physmem.boot.start import boot_hardware
from physmem.firmware.bootlog import parse_boot_log
from physmem.firmware.hardware import Hardware

RELEASES = {
    "x86_64": "6.1.0-47-cloud-amd64",
    "x86_64-la57": "6.1.0-47-cloud-amd64",
    "i386": "6.1.0-47-686",
    "i386-pae": "6.1.0-47-686-pae",
    "arm64": "6.1.0-47-cloud-arm64",
    "arm64-16k": "6.1.0-47-custom",
    "arm64-64k": "6.1.0-47-custom",
    "riscv64": "6.1.0-47-riscv64",
}
CASES = [
    ("x86_64", "6.1", 300, 1, 1, ""),
    ("x86_64", "6.1", 512, 2, 2, "nokaslr movablecore=100M transparent_hugepage=never"),
    ("x86_64", "6.1", 768, 3, 4, "kernelcore=30%"),
    ("x86_64", "6.12", 1200, 4, 3, "movablecore=50% transparent_hugepage=madvise"),
    ("x86_64", "6.1", 768, 4, 4, "mem=300M"),
    ("x86_64", "6.1", 640, 2, 3, "numa=off"),
    ("x86_64", "6.1", 9000, 2, 2, "kernelcore=1G"),
    ("x86_64-la57", "6.12", 4096, 1, 8, "nokaslr"),
    ("i386", "6.1", 1200, 1, 2, "movablecore=16M"),
    ("i386", "6.1", 300, 1, 1, "mem=200M"),
    ("i386-pae", "6.12", 6000, 1, 2, "kernelcore=2G"),
    ("i386-pae", "6.1", 4096, 1, 3, ""),
    ("arm64", "6.1", 256, 2, 8, ""),
    ("arm64", "6.1", 4096, 1, 2, "nokaslr"),
    ("arm64", "6.12", 640, 3, 4, "mem=200M movablecore=30%"),
    ("arm64-16k", "6.1", 512, 2, 3, "movablecore=100M"),
    ("arm64-64k", "6.12", 3000, 1, 4, "kernelcore=10%"),
    ("riscv64", "6.1", 3000, 3, 8, "transparent_hugepage=always"),
    ("riscv64", "6.12", 9000, 1, 1, "mem=500M"),
]


def log_text(booted, cmdline):
    """The log as a kernel would print it, with lines of no interest here added."""
    release = RELEASES[booted.arch].replace("6.1.0-47", f"{booted.kernel}.0-1")
    lines = [f"Linux version {release} (builder) #1 SMP"]
    if booted.arch.startswith("arm"):
        lines.insert(0, "Booting Linux on physical CPU 0x0000000000 [0x410fd083]")
    if "e820" in booted.log[0] or "BIOS" in booted.log[0]:
        lines.append(f"Command line: {cmdline}")
    rest = list(booted.log)
    # the initcalls begin before the RAM disk and the init memory come back
    at = next(
        (n for n, line in enumerate(rest) if line.startswith(("Freeing initrd", "Freeing unused"))),
        len(rest),
    )
    count = len(booted.cpu_node)
    up = [f"smp: Brought up {len(booted.online)} nodes, {count} CPUs", "devtmpfs: initialized"]
    return "\n".join(f"[    0.000000] {line}" for line in [*lines, *rest[:at], *up, *rest[at:]])


@pytest.mark.parametrize(("arch", "kernel", "mib", "nodes", "cpus", "options"), CASES)
def test_a_log_of_our_own_comes_back(arch, kernel, mib, nodes, cpus, options):
    cmdline = f"memblock=debug {options}".strip()
    hardware = Hardware.of(memory=mib << 20, nodes=nodes, cpus=cpus, arch=arch)
    made = boot_hardware(hardware, kernel=kernel, cmdline=cmdline)
    log = parse_boot_log(log_text(made.memory, cmdline))
    assert log.arch == arch or "la57" in arch
    told = boot_from_log(log)
    differences = [
        (figure.name, figure.ours, figure.theirs) for figure in compare_log(told, log).differences
    ]
    assert differences == []
    assert told.prediction.mismatches == ()
    assert told.prediction.dumps == told.prediction.dumps_equal >= 1
    assert told.zones == made.memory.zones
    for name in ("cpu_node", "zonelists", "fallback", "totalram_pages", "min_free_kbytes", "thp"):
        assert getattr(told, name) == getattr(made.memory, name), name
    for name in ("hand_over", "highmem", "cma"):
        ours, theirs = getattr(told, name), getattr(made.memory, name)
        assert np.array_equal(ours.pfn, theirs.pfn), name
        assert np.array_equal(ours.order, theirs.order), name
    made.machine().validate()
