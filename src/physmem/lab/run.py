# SPDX-License-Identifier: GPL-2.0-or-later
"""A what-if from one end to the other: the recording, its variants, the comparison."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from physmem.lab.against import Against, compare_zones, end_state
from physmem.lab.evaluate import counters_of
from physmem.lab.metrics import metrics_of
from physmem.lab.pollution import polluters
from physmem.lab.report import BASELINE, Report, VariantReport, failures_of
from physmem.lab.samples import Samples
from physmem.lab.settings import Settings, parse_group
from physmem.lab.source import Source
from physmem.lab.variant import Run, prepare
from physmem.lab.workload import Workload
from physmem.lib.errors import BadInputError

Progress = Callable[[int, int], None]
SAMPLES = 300
"""Samples of a run when somebody wants some, but does not say how many operations apart."""
_REQUESTS = (
    "requests are those of the recording: what a program would have done differently because an"
    " allocation failed or took longer is not known"
)
_NO_RECLAIM = (
    "reclaim, compaction and the OOM killer are not modelled: a request that would wait for them"
    " fails"
)
_NODE = "an allocation asks first for the node that served it when it was recorded"
_DRAINS = (
    "a drain of a zone that the recorded machine does not have comes with that of the highest zone"
    " of its node"
)
_ALWAYS = (_REQUESTS, _NO_RECLAIM, _NODE, _DRAINS)


@dataclass(eq=False)
class Study:
    """Variants that were run, with their machines.

    Attributes
    ----------
    source : the recording
    runs : in the order of the settings; empty if they were not to be kept
    samples : of each run; empty if none were wanted, or they were not to be kept
    """

    source: Source
    workload: Workload
    runs: list[Run] = field(default_factory=list)
    samples: list[Samples] = field(default_factory=list)
    report: Report | None = None


def whatif(
    capture: str | os.PathLike[str],
    *settings: str | Mapping[str, str],
    against: str | os.PathLike[str] | None = None,
    sample: int | None = None,
    until: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Run a recorded workload on variants of its machine, side by side.

    Parameters
    ----------
    capture : path
        A capture, or the folder of a recording.
    *settings : str or mapping
        One variant each: "movablecore=128M,mobility=off", or a mapping of names to values. The
        recorded machine itself is always the first variant.
    against : path, optional
        A recording of a kernel that was really booted like the first variant (without one: like
        the recorded machine): its end state is held against the prediction.
    sample : int, optional
        Operations between two samples; 0: some 300 samples. None: no samples.
    until : int, optional
        Row of the events at which the workload ends; default: the recorded end state.
    seed : int
        For settings that draw lots.
    progress : callable, optional
        Called with (variants done, variants in all).

    Raises
    ------
    BadInputError, BadMachineError
        A setting that does not exist, or that no kernel could start with.
    BadCaptureError
        Not a capture, or one without a state.

    Examples
    --------
    >>> report = whatif("recording.physmem", "movablecore=128M")  # doctest: +SKIP
    >>> [variant.whole.huge_now for variant in report.variants]  # doctest: +SKIP
    [135, 163]
    """
    study = run_study(
        capture,
        settings,
        against=against,
        sample=sample,
        until=until,
        seed=seed,
        progress=progress,
        keep=False,
    )
    if study.report is None:
        raise RuntimeError("a study has a report")
    return study.report


def run_study(  # noqa: PLR0913 - the options of a command
    capture: str | os.PathLike[str],
    settings: Sequence[str | Mapping[str, str]] = (),
    *,
    against: str | os.PathLike[str] | None = None,
    sample: int | None = None,
    until: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    keep: bool = True,
) -> Study:
    """As `whatif`; with `keep` the machines and samples stay at hand."""
    groups = [Settings(), *(parse_group(each, seed) for each in settings)]
    source = Source.open(capture)
    workload = source.workload
    if until is not None:
        if not 0 < until <= len(workload.events):
            raise BadInputError(
                f"until {until}: the recording has {len(workload.events)} events of pages"
            )
        workload = workload.until(until)
    other = None if against is None else _other(source, against)
    study = Study(source, workload)
    every = 0 if sample is None else sample or max(1, len(workload.ops) // SAMPLES)
    done = 0

    def one(group: Settings) -> tuple[VariantReport, Run | None, Samples | None]:
        nonlocal done
        run = prepare(source.described, group, workload)
        samples = Samples() if every else None
        run.carry_out(every, samples)
        variant = _variant(source, run, samples)
        done += 1
        if progress is not None:
            progress(done, len(groups))
        return variant, run if keep else None, samples if keep else None

    with ThreadPoolExecutor(min(len(groups), os.cpu_count() or 1)) as pool:
        results = list(pool.map(one, groups))
    variants = [variant for variant, _, _ in results]
    study.runs = [run for _, run, _ in results if run is not None]
    study.samples = [samples for _, _, samples in results if samples is not None]
    study.report = Report(
        capture=Path(source.name).name,
        digest=source.digest,
        version=_version(),
        kernel=source.capture.info.machine.kernel,
        seed=seed,
        until=until,
        workload={
            "operations": len(workload.ops),
            "allocations": workload.nr_slots,
            "early_pages": workload.early.nr_pages,
            "early_gaps": len(workload.early) - int((workload.early.slot >= 0).sum()),
            "boot_frames": len(workload.boot_frames),
            **workload.counts,
        },
        variants=variants,
        against=None if other is None else _compare(other, variants[min(1, len(variants) - 1)]),
        assumptions=list(_assumptions(source, workload, groups)),
    )
    return study


def _other(source: Source, against: str | os.PathLike[str]) -> Source:
    path = Path(against)
    if path.exists() and path.resolve() == Path(source.name).resolve():
        return source
    return Source.open(against)


def _variant(source: Source, run: Run, samples: Samples | None) -> VariantReport:
    has_sites = "site" in source.capture.events.columns and bool(source.capture.events.sites)
    return VariantReport(
        name=run.settings.text or BASELINE,
        kernel=run.memory.kernel,
        cmdline=run.memory.cmdline,
        page_size=1 << run.memory.page_shift,
        pageblock_order=int(run.machine.tables.memory[0]["pageblock_order"]),
        counters=counters_of(run),
        failures=failures_of(run.failed_of()),
        zones=metrics_of(run.machine),
        polluters=polluters(
            run, source.described.kernel, source.capture.events if has_sites else None
        ),
        samples=[] if samples is None else samples.rows(run),
        assumptions=list(run.assumptions),
    )


def _compare(other: Source, variant: VariantReport) -> Against:
    """Hold a variant against the end state of another recording."""
    info = other.capture.info
    state = end_state(other.capture.state1, other.name)
    zones = compare_zones(variant.zones, state)
    notes = []
    if other.described.kernel != variant.kernel:
        notes.append(
            f"the other recording is of Linux {other.described.kernel}, the variant of"
            f" {variant.kernel}"
        )
    theirs, ours = _memory_options(other.described.cmdline), _memory_options(variant.cmdline)
    if theirs != ours:
        notes.append(
            f"the other kernel was booted with {' '.join(theirs) or 'no such option'}, the variant"
            f" with {' '.join(ours) or 'none'}: they need not agree"
        )
    return Against(
        name=Path(other.name).name,
        digest=other.digest,
        kernel=info.machine.kernel,
        cmdline=other.described.cmdline,
        variant=variant.name,
        zones=zones,
        holds=all(zone.holds for zone in zones),
        notes=notes,
    )


def _memory_options(cmdline: str) -> list[str]:
    """Words of a command line that decide about memory."""
    names = ("movablecore", "kernelcore", "mem", "memmap", "numa", "movable_node", "highmem")
    return sorted(word for word in cmdline.split() if word.partition("=")[0] in names)


def _assumptions(source: Source, workload: Workload, groups: Iterable[Settings]) -> list[str]:
    """What was assumed about the recording, in words."""
    early, counts = workload.early, workload.counts
    found = []
    if workload.whole:
        found.append(
            f"{early.nr_pages:,} pages were in use before the first event (beside what the boot"
            f" keeps): they are allocated in the order of their frames, in pageblocks of the type"
            f" that they were in; {len(early) - int((early.slot >= 0).sum()):,} gaps between them"
            " are left free"
        )
    else:
        found.append(
            f"the capture begins at its first state: {early.nr_pages:,} pages that were in use then"
            " are placed by the order of their frames, in pageblocks of the type that they were in"
        )
    if counts["bulk_frames"]:
        found.append(
            f"{counts['bulk_frames']:,} frames of bulk requests have no event: a frame that was"
            " freed or held without one belongs to the first bulk request after it was listed"
        )
    if counts["silent_frames"]:
        found.append(
            f"{counts['silent_frames']:,} frames were taken without any event: each right after it"
            " was last seen on a list, with the flags of that list's type"
        )
    if counts["unseen_frees"]:
        found.append(f"{counts['unseen_frees']:,} frames were freed without an event")
    if source.capture.info.lost:
        found.append(f"{source.capture.info.lost:,} events were lost while recording")
    if any(group.page_shift for group in groups):
        found.append(
            "with larger pages each request is rounded up to whole pages, and a page is free when"
            " the last request in it is: programs would share pages that stay apart here"
        )
    return [*found, *_ALWAYS]


def _version() -> str:
    from physmem.lib.version import __version__

    return __version__
