# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a replay as text."""

from collections.abc import Iterator

from physmem.cli.output import facts, of, paint, share_text, table
from physmem.replay.report import FirstDivergence, Result

_RACES_SHOWN = 20


def verdict(result: Result) -> str:
    """The result in one line.

    It begins with EXACT when every answer and the final state are as recorded, else with DIVERGED;
    the races that the recording had to decide are counted in it.
    """
    parts = [
        f"{of(result.exact, result.allocations)} allocations",
        f"{of(result.consequences_exact, result.consequences)} consequences",
    ]
    if result.consequences_extra:
        parts.append(f"{result.consequences_extra:,} predicted that did not happen")
    if result.races:
        word = "race" if len(result.races) == 1 else "races"
        parts.append(f"{len(result.races):,} {word} decided by the recording")
    if result.final is None:
        parts.append("no final state recorded")
    else:
        parts.append("final state equal" if result.final.equal else "final state differs")
    word, colour = ("EXACT", "green") if result.equal else ("DIVERGED", "red")
    return f"{paint(f'{word}:', colour, 'bold')} {', '.join(parts)}"


def speed(result: Result) -> str:
    """How long the replay took, without loading and compiling."""
    millions = result.events_per_second / 1e6
    return (
        f"{result.events:,} events in {result.seconds:.2f} s"
        f" ({millions:.1f} million events per second)"
    )


def describe(result: Result) -> str:
    """The whole result: figures, zones, races, first divergence, final state, verdict."""
    sections = [
        _figures(result),
        _zones(result),
        *_races(result),
        *([_divergence(result.first_divergence)] if result.first_divergence else []),
        _final(result),
        *(paint(f"Note: {note}", "yellow") for note in result.notes),
        f"{verdict(result)}\n{speed(result)}",
    ]
    return "\n\n".join(sections)


def _figures(result: Result) -> str:
    mode = "strict: requests only" if result.strict else "the recording decides races"
    pairs = [
        ("kernel", result.kernel or "unknown"),
        ("mode", mode),
        ("events", f"{result.events:,}"),
        ("lost events", f"{result.lost_events:,}" if result.lost_events else "none"),
        ("allocations", f"{of(result.exact, result.allocations)} exact"),
        ("consequences", f"{of(result.consequences_exact, result.consequences)} exact"),
        ("frees", f"{result.frees:,}"),
    ]
    odd = [
        ("predicted only", result.consequences_extra, "consequences"),
        ("unexplained", result.unexplained, "consequences that belong to no request"),
        ("unmatched", result.frees_unmatched, "frees of frames that were not in use"),
        ("bulk pages", result.bulk_pages, "frames taken without an event"),
        ("other node", result.node_requests, "allocations for another node than the CPU's"),
    ]
    pairs += [(name, f"{count:,} {what}") for name, count, what in odd if count]
    decays = result.decays
    if decays.seen or decays.inferred:
        told = f", {decays.moved:,} of them with the help of an answer" if decays.moved else ""
        pairs.append(("decays", f"{decays.seen:,} seen, {decays.inferred:,} inferred{told}"))
    return f"{paint('Replay', 'bold')}\n{facts(pairs)}"


def _zones(result: Result) -> str:
    rows = [
        (
            str(zone.node),
            zone.name,
            f"{zone.requests:,}",
            f"{zone.exact:,}",
            share_text(zone.exact, zone.requests),
        )
        for zone in result.zones
    ]
    head = ("node", "zone", "requests", "exact", "share")
    return f"{paint('Allocations by zone', 'bold')}\n{table(head, rows, left=2)}"


def _races(result: Result) -> Iterator[str]:
    if not result.races:
        return
    lines = [f"  line {race.line:,}: {race.what}" for race in result.races[:_RACES_SHOWN]]
    more = len(result.races) - _RACES_SHOWN
    if more > 0:
        lines.append(f"  and {more:,} more (--json lists all)")
    yield "\n".join([paint("Races that the recording decided", "bold"), *lines])


def _divergence(first: FirstDivergence) -> str:
    pairs = [
        ("recorded", first.expected),
        ("predicted", first.predicted),
        ("rule", first.why),
    ]
    context = [
        paint(line, "yellow", "bold") if line.startswith(">") else line for line in first.context
    ]
    return "\n".join(
        [
            paint(f"First divergence: trace line {first.line:,}", "bold"),
            facts(pairs),
            "",
            *(f"  {line}" for line in context),
            "",
            "  before this line the model had",
            *(f"    {line}" for line in first.lists),
        ]
    )


def _final(result: Result) -> str:
    title = paint("Final state", "bold")
    final = result.final
    if final is None:
        return f"{title}\n  none was recorded: nothing to compare"
    answers = [
        ("free lists, in order", final.free_lists_equal),
        ("per-CPU lists, in order", final.pcp_lists_equal),
        ("pageblock types", final.pageblocks_equal),
        ("buddyinfo", final.buddyinfo_equal),
        ("pagetypeinfo", final.pagetypeinfo_equal),
    ]
    pairs = [
        (name, paint("equal", "green") if equal else paint("DIFFERENT", "red"))
        for name, equal in answers
    ]
    lines = [title, facts(pairs)]
    if final.differences:
        lines += ["", *(f"  {line}" for line in final.differences)]
        more = final.nr_differences - len(final.differences)
        if more > 0:
            lines.append(f"  and {more:,} more differences")
    return "\n".join(lines)
