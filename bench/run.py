# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure physmem: `python bench/run.py [--quick] [--capture FILE] [--json FILE] [--gate]`.

docs/performance.md tells what is measured and how. Times are the best of several repetitions:
whatever else a computer does can only add to them. Medians stand beside the most important ones.
"""

import argparse
import json
import platform
import statistics
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from allocating import measure_huge, measure_machine, measure_pairs
from booting import MOST_RATIO as MOST_BOOT_RATIO
from booting import measure_boot
from cold import measure_cold
from importing import measure_import
from paging import measure_direct_map, measure_faults, measure_oracle, measure_paging
from replaying import Replays, measure_replay

from physmem.lib.jit import PURE

LEAST_EVENTS_PER_SECOND = 15e6
MOST_RATIO = 1.6
HUGE = "1TiB"
WIDTH = 104


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description="Measure the speed of physmem.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument(
        "--capture",
        type=Path,
        metavar="FILE",
        default=Path(str(files("physmem") / "data" / "demo.physmem")),
        help="capture to replay (default: the one that comes with physmem)",
    )
    parser.add_argument("--quick", action="store_true", help="the replay only, 5 repetitions")
    parser.add_argument(
        "--cold", action="store_true", help="also compile everything anew (half a minute)"
    )
    parser.add_argument(
        "--gate",
        action="store_true",
        help=f"exit 1 below {LEAST_EVENTS_PER_SECOND / 1e6:.0f} M events/s or above "
        f"{MOST_RATIO} times the time of C",
    )
    return parser.parse_args()


def replay_figures(measured: Replays) -> dict[str, Any]:
    """The figures of the replay as plain numbers."""
    return {
        "capture": measured.capture,
        "events": measured.events,
        "requests": measured.requests,
        "digest": measured.digest,
        "compiler": measured.compiler,
        "events_per_s": measured.events_per_second,
        "events_per_s_median": measured.events
        / (statistics.median(measured.lowering) + statistics.median(measured.session)),
        "repetitions": len(measured.session),
        "lowering_ms": min(measured.lowering) * 1e3,
        "lowering_median_ms": statistics.median(measured.lowering) * 1e3,
        "session_ms": min(measured.session) * 1e3,
        "session_median_ms": statistics.median(measured.session) * 1e3,
        "kernel_ms": min(measured.kernel) * 1e3,
        "kernel_median_ms": statistics.median(measured.kernel) * 1e3,
        "c_ms": min(measured.c) * 1e3 if measured.c else None,
        "c_median_ms": statistics.median(measured.c) * 1e3 if measured.c else None,
        "ratio": measured.ratio,
    }


def rows(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Lines of the table: what, how much, remark."""
    f = figures

    def ms(name: str) -> tuple[str, str]:
        return f"{f[name + '_ms']:.1f} ms", f"median {f[name + '_median_ms']:.1f} ms"

    lines = [
        (
            "replay (lowering + run)",
            f"{f['events_per_s'] / 1e6:.1f} M events/s",
            f"median {f['events_per_s_median'] / 1e6:.1f}; best of {f['repetitions']}",
        ),
        ("  lowering: events to requests", *ms("lowering")),
        ("  run with checkpoints", *ms("session")),
        ("  run in one call", *ms("kernel")),
    ]
    if f["ratio"] is None:
        lines.append(("  the same in C", "skipped", "no C compiler: set CC or install one"))
    else:
        lines.append(("  the same in C", *ms("c")))
        lines.append(("  time over that of C", f"{f['ratio']:.2f}", f["compiler"]))
    if "pair_python_order0_ns" in f:
        lines += [
            ("alloc + free from Python, order 0", f"{f['pair_python_order0_ns']:.0f} ns", ""),
            (
                "alloc + free in a kernel, order 0",
                f"{f['pair_kernel_order0_ns']:.1f} ns",
                "per-CPU lists",
            ),
            (
                "alloc + free in a kernel, order 9",
                f"{f['pair_kernel_order9_ns']:.0f} ns",
                "free lists; all 512 frames are marked",
            ),
            ("copy of a machine of 1 GiB", f"{f['copy_1gib_ms']:.1f} ms", ""),
            ("snapshot of a machine of 1 GiB", f"{f['snapshot_1gib_ms']:.1f} ms", ""),
            ("bytes per simulated page", f"{f['bytes_per_page']:.2f}", ""),
            (
                f"making a machine of {HUGE}",
                f"{f['huge_setup_s']:.2f} s",
                f"{f['huge_rss_mib']:.0f} MiB resident at the peak",
            ),
            (
                "boot of 1 GiB, of 16 GiB",
                f"{f['boot_1gib_ms']:.0f} ms, {f['boot_16gib_ms']:.0f} ms",
                "warm",
            ),
            (
                "boot of 1 TiB in 8 nodes",
                f"{f['boot_1tib_ms']:.0f} ms",
                f"{f['boot_ratio']:.0f} times 1 GiB; {f['boot_rss_mib']:.0f} MiB at the peak",
            ),
            (
                "import of ftrace text",
                f"{f['import_lines_per_s'] / 1e6:.2f} M lines/s",
                f"{f['import_mb_per_s']:.0f} MB/s, {f['import_lines']:,} lines",
            ),
        ]
    if "map_4k_mpages_s" in f:
        lines += paging_rows(f)
    if "cold_kernels_s" in f:
        lines += [
            ("kernels of a replay, compiled", f"{f['cold_kernels_s']:.1f} s", "empty cache"),
            ("kernels of a replay, loaded", f"{f['warm_kernels_s']:.2f} s", "with imports"),
            ("first replay of a process", f"{f['warm_replay_s']:.2f} s", "from start to result"),
        ]
    return lines


def paging_rows(f: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Lines about page tables."""
    oracle = max(f.get("unicorn_translate_m_s", 0), f.get("addrxlat_translate_m_s", 0))
    ratio = f"{f['translate_random_m_s'] / oracle:.0f} times the fastest oracle" if oracle else ""
    return [
        ("pages of 4K mapped", f"{f['map_4k_mpages_s']:.0f} M/s", "1 GiB, four levels"),
        ("pages of 4K unmapped", f"{f['unmap_4k_mpages_s']:.0f} M/s", "tables given back"),
        ("random addresses translated", f"{f['translate_random_m_s']:.0f} M/s", ratio),
        ("direct map of 1 TiB, leaves of 1G", f"{f['direct_map_1tib_ms']:.2f} ms", ""),
        ("page faults of a process", f"{f['faults_m_s']:.1f} M/s", "512 MiB, in random order"),
    ]


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{figures['capture']}: {figures['events']:,} events")
    table.add_column("measured", no_wrap=True)
    table.add_column("best", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows(figures):
        table.add_row(*row)
    Console(width=WIDTH).print(table)  # a pipe would cut it at 80 columns
    if figures["ratio"] is not None:
        print(f"C and kernels agree in every byte (digest {figures['digest']}).")


def missed(figures: dict[str, Any]) -> list[str]:
    """Bounds that were not kept."""
    found = []
    if figures["events_per_s"] < LEAST_EVENTS_PER_SECOND:
        found.append(
            f"replay: {figures['events_per_s'] / 1e6:.1f} M events/s, "
            f"wanted {LEAST_EVENTS_PER_SECOND / 1e6:.0f}"
        )
    if figures["ratio"] is not None and figures["ratio"] > MOST_RATIO:
        found.append(f"{figures['ratio']:.2f} times the time of C, wanted at most {MOST_RATIO}")
    if figures.get("boot_ratio", 0) > MOST_BOOT_RATIO:
        found.append(
            f"boot of 1 TiB: {figures['boot_ratio']:.0f} times that of 1 GiB, wanted at most"
            f" {MOST_BOOT_RATIO}"
        )
    return found


def main() -> int:
    """Measure, show, judge."""
    asked = arguments()
    if PURE:
        print("PHYSMEM_PURE is set: plain Python is not measured", file=sys.stderr)
        return 2
    figures: dict[str, Any] = {
        "physmem": version("physmem"),
        "python": platform.python_version(),
        "numba": version("numba"),
        "machine": platform.machine(),
    }
    figures |= replay_figures(measure_replay(asked.capture, 5 if asked.quick else 15))
    if not asked.quick:
        figures |= measure_pairs(5, 20_000)
        figures |= measure_machine(5)
        figures |= measure_huge(HUGE)
        figures |= measure_boot()
        figures |= measure_import(asked.capture, 3, 2_000_000)
        figures |= measure_paging(9) | measure_direct_map(5) | measure_faults(3)
        figures |= measure_oracle()
    if asked.cold:
        figures |= measure_cold(asked.capture)
    show(figures)
    if asked.json is not None:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    for reason in missed(figures):
        print(("gate: " if asked.gate else "note: ") + reason, file=sys.stderr)
    return 1 if asked.gate and missed(figures) else 0


if __name__ == "__main__":
    sys.exit(main())
