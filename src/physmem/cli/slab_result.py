# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem replay --slab`: the report."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from physmem.replay.slab_replay import SlabResult


def replay_objects(file: Path, *, json: bool, quiet: bool) -> bool:
    """Replay the objects of a capture and print what was found; True: all as predicted."""
    from physmem.replay.slab_replay import replay_slab
    from physmem.trace.capture import read_capture

    result = replay_slab(read_capture(file))
    if json:
        from physmem.cli.output import print_json

        print_json(result.to_dict())
    else:
        print(_line(result) if quiet else describe(result))
    return result.equal


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}" + (f" ({100 * part / whole:.2f} %)" if whole else "")


def _line(result: "SlabResult") -> str:
    return (
        f"slabs: {_share(result.known_exact, result.known)} objects of known caches, "
        f"{_share(result.slabs_made_exact, result.slabs_made)} slabs made, "
        f"{_share(result.slabs_ended_exact, result.slabs_ended)} ended, "
        f"{len(result.inconsistent)} inconsistent"
    )


def describe(result: "SlabResult") -> str:
    """The report as text."""
    from physmem.cli.output import facts, paint, table

    pairs = [
        ("kernel", result.kernel or "unknown"),
        ("events of objects", f"{result.objects:,}"),
        ("unknown pointers", f"{result.unknown_pointers:,}"),
        ("beyond the caches", f"{result.large:,}"),
        ("objects that do not fit their slab", f"{len(result.inconsistent):,}"),
        ("slab of an allocation predicted", _share(result.exact, result.allocations)),
        ("... of caches whose state is known", _share(result.known_exact, result.known)),
        ("slab-page allocations at the event", _share(result.slabs_made_exact, result.slabs_made)),
        ("slab-page frees at the event", _share(result.slabs_ended_exact, result.slabs_ended)),
        ("... of them of caches not known yet", f"{result.slabs_unknown:,}"),
        ("predicted, but not recorded", f"{result.extra:,}"),
    ]
    sections = [f"{paint('Slabs', 'bold')}\n{facts(pairs)}"]
    if result.causes:
        rows = [(cause, f"{count:,}") for cause, count in result.causes]
        sections.append(table(("not predicted, because", "allocations"), rows))
    busiest = [
        (
            each.name,
            f"{each.size}",
            f"{each.exact:,}/{each.allocations:,}",
            f"{each.slabs_made_exact:,}/{each.slabs_made:,}",
            f"{each.slabs_ended_exact:,}/{each.slabs_ended:,}",
        )
        for each in result.caches[:20]
    ]
    head = ("cache", "stride", "allocations", "slabs made", "slabs ended")
    sections.append(table(head, busiest))
    sections += [f"  {text}" for text in result.inconsistent[:10]]
    sections += [f"  note: {text}" for text in result.notes]
    return "\n\n".join(sections)
