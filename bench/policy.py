# SPDX-License-Identifier: GPL-2.0-or-later
"""What a policy of one's own costs, and each knob: `python bench/policy.py [--json FILE] [--gate]`.

Two million requests of a synthetic workload on a machine of 1 GiB: orders 0 to 4 and 9, a third of
them unmovable, frames in use between 70 and 90 %. Each rule does the same requests in turns with
the kernel's own, so that their ratio stands whatever else the computer does.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from physmem.lib.jit import PURE, kernel, ready
from physmem.lib.struct import Array, address, i64
from physmem.machine.machine import Machine
from physmem.machine.policy import check_policy
from physmem.machine.tuning import Tuning, tune
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import NONE
from physmem.mm.page_alloc import alloc_pages
from physmem.mm.page_free import free_pages

REQUESTS = 2_000_000
LEAST_SPEED = 0.70
"""Of the built-in speed, with the policy of the guide."""
GUIDE = "SmallestFirst"
POLICIES = ("EverythingMovable", "FreeToTail", "SmallestFirst", "NoInstantReuse")
KNOBS = (
    {"pcp": "off"},
    {"mobility": "off"},
    {"shuffle": "1"},
    {"fallback": "defrag"},
    {"fallback": "none"},
    {"list_order": "lifo"},
    {"list_order": "fifo"},
    {"list_order": "address"},
    {"confine": "256MiB"},
    {"tree": "on"},
)
GFP_KERNEL = 0xCC0
GFP_HIGHUSER_MOVABLE = 0x100CCA
_MASK = (1 << 48) - 1


@kernel
def synthetic(h: int, count: int, held: Array[i64], low: int, high: int) -> int:
    """Allocate until `high` frames are in use, then free at random until `low`; and so on.

    `held` remembers pfn << 4 | order. Returns the frames in use at the end.
    """
    m = memory_at(h)
    seed = 42
    live = 0
    used = 0
    filling = True
    for _ in range(count):
        seed = (seed * 0x5DEECE66D + 11) & _MASK
        dice = seed >> 20
        if filling and live < len(held):
            order = 0
            if dice % 16 == 0:
                order = dice // 16 % 4 + 1
            elif dice % 512 == 1:
                order = 9
            gfp = GFP_KERNEL if dice // 64 % 3 == 0 else GFP_HIGHUSER_MOVABLE
            pfn = alloc_pages(m, order, gfp, 0, 0, 0)
            if pfn != NONE:
                held[live] = pfn << 4 | order
                live += 1
                used += 1 << order
            filling = pfn != NONE and used < high
        elif live > 0:
            at = dice % live
            order = held[at] & 15
            free_pages(m, held[at] >> 4, order, 0, False)
            live -= 1
            held[at] = held[live]
            used -= 1 << order
            filling = used < low
        else:
            filling = True
    return used


def once(machine: Machine, count: int) -> tuple[float, int]:
    """Processor seconds of the workload on a copy, and frames in use at the end."""
    made = machine.copy()
    frames = made.nr_free_pages
    held: Any = np.zeros(frames, np.int64)
    run = ready(synthetic)
    h = address(made.tables.memory)
    start = time.thread_time()
    used = run(h, count, held, frames * 70 // 100, frames * 90 // 100)
    seconds = time.thread_time() - start
    check_policy(made.tables, made.layout.zone_names)
    made.validate()
    return seconds, used


def measure(variants: dict[str, dict[str, str]], repeat: int, count: int) -> dict[str, float]:
    """Speed of each variant as a share of the kernel's own; "built-in_ns": of one request."""
    plain = Machine.build("1GiB", cpus=1)
    machines = {name: tune(plain, Tuning.parse(settings)) for name, settings in variants.items()}
    machines["built-in"] = plain
    least = dict.fromkeys(machines, float("inf"))
    for _ in range(repeat):
        for name, machine in machines.items():
            seconds, used = once(machine, count)
            assert used > 0
            least[name] = min(least[name], seconds)
    own = least.pop("built-in")
    return {"built-in_ns": own / count * 1e9} | {
        name: own / seconds for name, seconds in least.items()
    }


def compile_seconds() -> float:
    """Processor seconds to compile the guide's policy anew, the engine being there."""
    from physmem.lib.jit import hook
    from physmem.machine.policy import load_policy
    from physmem.mm.mmzone import Zone

    chosen = load_policy(f"physmem.lab.policies:{GUIDE}")
    start = time.process_time()
    for function in chosen.functions.values():
        hook(function, Zone)
    return time.process_time() - start


def main() -> int:
    """Measure, show, judge."""
    parser = argparse.ArgumentParser(description="Measure what policies and knobs cost.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--quick", action="store_true", help="the guide's policy only")
    parser.add_argument("--gate", action="store_true", help=f"exit 1 below {LEAST_SPEED}")
    asked = parser.parse_args()
    if PURE:
        print("PHYSMEM_PURE is set: plain Python is not measured", file=sys.stderr)
        return 2
    names = (GUIDE,) if asked.quick else POLICIES
    variants = {name: {"policy": f"physmem.lab.policies:{name}"} for name in names}
    if not asked.quick:
        direct = {name: settings | {"pcp": "off"} for name, settings in variants.items()}
        variants |= {f"{name} pcp=off": settings for name, settings in direct.items()}
        variants |= {
            " ".join(f"{knob}={value}" for knob, value in settings.items()): settings
            for settings in KNOBS
        }
    figures = measure(variants, 5 if asked.quick else 3, REQUESTS)
    figures["compile_s"] = compile_seconds()
    for name, figure in figures.items():
        print(f"{name:32} {figure:8.2f}")
    if asked.json is not None:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return int(asked.gate and figures[GUIDE] < LEAST_SPEED)


if __name__ == "__main__":
    sys.exit(main())
