# SPDX-License-Identifier: GPL-2.0-or-later
"""Hand-made traces and recordings, and a slow reader of trace lines to compare with."""

import json
import re

from physmem.mm.gfp import GFP_6_1, decode_gfp
from physmem.mm.state import PcpState, State, ZoneState, encode_state
from physmem.trace.events import EVENT_NAMES, NO_PFN

MOVABLE = "GFP_HIGHUSER_MOVABLE|__GFP_ZERO"
START = 0x1000
SPANNED = 1024


def line(event, ts=1.0, *, comm="init", pid=1, cpu=0, flags="....."):
    """One line of trace text, as the kernel pads it."""
    return f"{comm:>16}-{pid:<7} [{cpu:03}] {flags} {ts:12.6f}: {event}\n"


def alloc(pfn, ts=1.0, *, order=0, migratetype=1, gfp=MOVABLE, **who):
    fields = f"page=(____ptrval____) pfn={pfn:#x} order={order} migratetype={migratetype}"
    return line(f"mm_page_alloc: {fields} gfp_flags={gfp}", ts, **who)


def free(pfn, ts=1.0, *, order=0, **who):
    return line(f"mm_page_free: page=(____ptrval____) pfn={pfn:#x} order={order}", ts, **who)


ONE_OF_EACH = (
    "mm_page_alloc: page=00000000025c073c pfn=0x4986a order=1 migratetype=2 gfp_flags=GFP_KERNEL",
    "mm_page_free: page=(____ptrval____) pfn=0x9226 order=1",
    "mm_page_free_batched: page=(ptrval) pfn=0x9227 order=0",
    "mm_page_alloc_zone_locked: page=(ptrval) pfn=0x9228 order=3 migratetype=1 percpu_refill=0",
    "mm_page_pcpu_drain: page=(ptrval) pfn=0x9225 order=0 migratetype=2",
    (
        "mm_page_alloc_extfrag: page=(ptrval) pfn=0x4a800 alloc_order=3 fallback_order=10 "
        "pageblock_order=10 alloc_migratetype=0 fallback_migratetype=1 fragmenting=0 "
        "change_ownership=1"
    ),
    "bulk: (__alloc_pages_bulk+0x0/0x69c) gfp=0x2cc2 nid=-1 nr=7",
    "bulk_ret: (alloc_pages_bulk_array_mempolicy+0xac/0x22c <- __alloc_pages_bulk) ret=7",
    "drain_pages_zone: (drain_pages_zone+0x0/0x50) cpu=1 zone=0xffff88803fe26600",
    "drain_zone_pages: (drain_zone_pages+0x0/0x50) zone=0xffff88803fe26600 pcp=0xffff888027237",
    "isolate_free: (__isolate_free_page+0x0/0x1a0) page=0xffffea0000248a00 order=9",
    "tracing_mark_write: SNAP 0",
    (
        "kmalloc: call_site=alloc_desc+0x35/0x250 ptr=ffff88800afd8400 bytes_req=448 "
        "bytes_alloc=512 gfp_flags=GFP_KERNEL|__GFP_ZERO node=0 accounted=false"
    ),
    "kfree: call_site=acpi_ns_evaluate+0x19f/0x2f0 ptr=ffff88800b6babc0",
    (
        "kmem_cache_alloc: call_site=__trace_define_field+0x33/0xc0 ptr=(____ptrval____) "
        "bytes_req=56 bytes_alloc=56 gfp_flags=GFP_KERNEL node=-1 accounted=true"
    ),
    "kmem_cache_free: call_site=__put_task+0x1/0x2 ptr=ffff88800b6babc8 name=cred_jar",
)
OBJECT_EVENTS = ("kmalloc", "kfree", "kmem_cache_alloc", "kmem_cache_free")

_LINE = re.compile(r"^ *(.*)-(\d+) +\[(\d+)\] (\S+) +(\d+)\.(\d{6}): (\w+): (.*)$")
_KINDS = {name: int(kind) for kind, name in EVENT_NAMES.items()}


def slow_row(text):
    """The row of a line with an event that is read, as a dict (comm and marker as text)."""
    comm, pid, cpu, flags, seconds, micros, event, rest = _LINE.match(text).groups()
    kind = _KINDS[event]
    words = dict(word.split("=", 1) for word in rest.split() if "=" in word)
    row = {
        "ts": (int(seconds) * 10**6 + int(micros)) * 1000,
        "cpu": int(cpu),
        "pid": int(pid),
        "comm": comm,
        "context": (flags[0] in "dDb")
        | (flags[1] != ".") << 1
        | (flags[2] in "hHzZ") << 2
        | (flags[2] in "sH") << 3,
        "preempt": 0 if flags[3] == "." else int(flags[3], 16),
        "kind": kind,
        "pfn": int(words.get("pfn", words.get("zone", "-1")), 0),
        "order": int(words.get("order", words.get("alloc_order", "0"))),
        "migratetype": int(words.get("migratetype", words.get("alloc_migratetype", "-1"))),
        "gfp": int(words["gfp"], 16) if "gfp" in words else 0,
        "arg0": 0,
        "arg1": 0,
        "site": "",
    }
    if row["pfn"] >= 1 << 63:
        row["pfn"] -= 1 << 64
    if event == "mm_page_alloc":
        row["gfp"] = decode_gfp(words["gfp_flags"], GFP_6_1)
        if row["pfn"] == 0:
            row["pfn"] = NO_PFN
    elif event == "mm_page_alloc_zone_locked":
        row["arg0"] = int(words["percpu_refill"])
    elif event == "mm_page_alloc_extfrag":
        row["arg0"] = int(words["fallback_order"])
        row["arg1"] = int(words["fallback_migratetype"]) | int(words["change_ownership"]) << 8
    elif event == "bulk":
        row["arg0"], row["arg1"] = int(words["nid"]), int(words["nr"])
    elif event == "bulk_ret":
        row["arg1"] = int(words["ret"])
    elif event == "drain_pages_zone":
        row["arg0"] = int(words["cpu"])
    elif event == "tracing_mark_write":
        row["arg0"] = rest
    elif event in OBJECT_EVENTS:
        hidden = words["ptr"].startswith("(")
        row["pfn"] = -1 if hidden else int(words["ptr"], 16) - (1 << 64)
        row["site"] = words.get("name", words["call_site"])
        if "alloc" in event:
            row["gfp"] = decode_gfp(words["gfp_flags"], GFP_6_1)
            row["arg0"], row["arg1"] = int(words["bytes_req"]), int(words["bytes_alloc"])
    return row


def rows_of(events):
    """Rows of events as `slow_row` gives them."""
    names = [name for name in events.columns if name != "line"]
    rows = []
    for values in zip(*(getattr(events, name).tolist() for name in names), strict=True):
        row = dict(zip(names, values, strict=True))
        row["comm"] = events.comms[row["comm"]]
        if row["kind"] == _KINDS["tracing_mark_write"]:
            row["arg0"] = events.markers[row["arg0"]]
        objects = row["kind"] >= _KINDS["kmalloc"]
        row["site"] = events.sites[row["site"]] if objects else ""
        rows.append(row)
    return rows


def make_state(free_blocks, pcp=(), blocks="MM"):
    """State of one zone Normal; `free_blocks` are (order, migratetype, pfn), head first."""
    lists = [[[] for _ in range(5)] for _ in range(11)]
    for order, migratetype, pfn in free_blocks:
        lists[order][migratetype].append(pfn)
    pcp_lists = [[] for _ in range(14)]
    pcp_lists[1] = list(pcp)
    return State(
        zones=[
            ZoneState(
                node=0,
                name="Normal",
                start=START,
                spanned=SPANNED,
                managed=SPANNED - 8,
                present=SPANNED,
                wmark=[4, 5, 6, 7],
                free=lists,
                nr_free=[sum(map(len, types)) for types in lists],
                pcp=[PcpState(cpu=0, count=len(pcp), high=6, batch=2, lists=pcp_lists)],
                pageblocks=blocks,
                lowmem_reserve=[0, 0, 0],
            )
        ],
        pageblock_order=9,
    )


STATE0_FREE = ((9, 1, START + 512), (8, 1, START + 256), (7, 0, START + 128))
STATE1_FREE = ((9, 1, START + 512), (8, 1, START + 256), (6, 0, START + 192))

TRACE = "".join(
    (
        "# tracer: nop\n#\n",
        alloc(START, 1.0),  # line 3
        alloc(START + 2, 1.1, order=1, gfp="GFP_KERNEL", migratetype=0),
        alloc(START + 4, 1.2, order=2, migratetype=1),
        alloc(0, 1.3, order=9),
        free(START + 5, 1.4),
        free(START + 90, 1.5),  # never seen
        line("kmalloc_node: call_site=a+0x1/0x2 ptr=1 bytes_req=3", 1.6),
        line("tracing_mark_write: SNAP0", 1.7),  # line 10: state0 before it
        alloc(START + 128, 2.0, order=6, gfp="GFP_KERNEL", migratetype=0, flags="d..2."),
        free(START + 4, 2.1, comm="kworker/0:1-ev", pid=33),
        line("tracing_mark_write: SNAP1", 2.2),  # line 13: state1 before it
    )
)

ZONEINFO = """\
Node 0, zone   Normal
  per-node stats
      nr_inactive_anon 0
  pages free     900
        boost    0
        min      4
        spanned  1024
        present  1024
        managed  1016
        cma      0
        protection: (0, 0)
  pagesets
    cpu: 0
              count: 0
  node_unreclaimable:  0
  start_pfn:           4096
Node 0, zone  Movable
  pages free     0
        spanned  0
        present  0
        managed  0
        cma      0
"""

EVENTS = {
    "mm_page_alloc": 5,
    "mm_page_free": 3,
    "kmalloc_node": 1,
    "tracing_mark_write": 2,
}


def make_recording(directory, **changes):
    """Write a recording; `changes` replace file contents by name ('_' for '.'), None: no file."""
    manifest = {
        "kernel": "6.1.170 (Debian 6.1.0-47-cloud-amd64)",
        "arch": "x86_64",
        "cpus": 1,
        "nodes": 1,
        "trace": {"lines": 13, "events": EVENTS, "lost": 0},
        "state0_before_line": 10,
        "state1_before_line": 13,
        "pageblock_order": 9,
    }
    files = {
        "manifest.json": json.dumps(manifest),
        "trace.txt": TRACE,
        "state0.json": encode_state(make_state(STATE0_FREE, [START + 20, START + 21])),
        "state1.json": encode_state(make_state(STATE1_FREE, [START + 20])),
        "start.zoneinfo": ZONEINFO,
        "cmdline": "console=ttyS0 panic=-1\n",
        "version": "Linux version 6.1.0-47-cloud-amd64 (gcc) #1 SMP\n",
    }
    for name, content in changes.items():
        if name == "manifest":
            files["manifest.json"] = json.dumps({**manifest, **content})
        else:
            files[name.replace("_", ".")] = content
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if content is not None:
            raw = content if isinstance(content, bytes) else content.encode()
            (directory / name).write_bytes(raw)
    return directory
