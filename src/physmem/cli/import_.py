# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem import`: a recording of a real kernel becomes one capture file."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from physmem.cli.options import SUFFIX, Json, Quiet, complete_file, complete_folder
from physmem.lib.errors import BadInputError

if TYPE_CHECKING:
    from physmem.trace.recording import ImportReport

_Directory = Annotated[
    Path,
    typer.Argument(
        metavar="DIR",
        show_default=False,
        autocompletion=complete_folder,
        help="Folder of a recording: trace, states, manifest.",
    ),
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        show_default=False,
        autocompletion=complete_file,
        help=f"Capture to write; default: name of DIR + {SUFFIX}, in the current directory.",
    ),
]


def import_(
    directory: _Directory,
    output: _Output = None,
    json: Json = False,
    compact: Annotated[
        bool, typer.Option("--compact", help="Only what lies between the states, in less space.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
    allow_truncated: Annotated[
        bool,
        typer.Option("--allow-truncated", help="Take a trace that ends early as far as it goes."),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Check a recording and write one self-contained capture file."""
    from physmem.cli.compiling import compile_now
    from physmem.trace.scan import scan

    path = output or Path(directory.resolve().name + SUFFIX)
    _check_output(path, force=force)
    if not directory.is_dir():
        raise BadInputError(f"{directory}: no such directory; name the directory of a recording")
    compile_now(scan, quiet=quiet or json)  # before the clock of the import starts
    work = _import_compact if compact else _import
    report = work(directory, path, allow_truncated, quiet=quiet or json)
    if json:
        from physmem.cli.output import print_json

        print_json(_to_dict(report))
    elif quiet:
        print(_summary(report))
    else:
        print(describe(report))


def _check_output(path: Path, *, force: bool) -> None:
    if path.is_dir():
        raise BadInputError(f"{path}: is a directory; name a file in it")
    if not path.absolute().parent.is_dir():
        raise BadInputError(f"{path}: there is no directory {path.parent}; make it first")
    if path.is_file() and not force:
        raise BadInputError(f"{path}: exists already; choose another name (-o) or use --force")


def _import(directory: Path, path: Path, truncated: bool, *, quiet: bool) -> "ImportReport":
    from physmem.cli.progress import Bar
    from physmem.trace.recording import import_recording

    with Bar("import", "bytes", quiet=quiet) as bar:
        return import_recording(directory, path, bar, allow_truncated=truncated)


def _import_compact(directory: Path, path: Path, truncated: bool, *, quiet: bool) -> "ImportReport":
    """Import into a folder beside the output that vanishes, then write the output from there."""
    from physmem.cli.output import note
    from physmem.trace.compact import compact_capture

    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            whole = Path(folder) / path.name
            report = _import(directory, whole, truncated, quiet=quiet)
            note("compacting ...", quiet=quiet)
            _, report.capture_bytes = compact_capture(whole, path)
    except OSError as error:
        error.filename = error.filename and str(path)
        raise
    report.output = str(path)
    return report


def _to_dict(report: "ImportReport") -> dict[str, object]:
    import msgspec

    result: dict[str, object] = msgspec.to_builtins(report)
    return result


def _summary(report: "ImportReport") -> str:
    return (
        f"{report.output}: {sum(report.events.values()):,} events of Linux"
        f" {report.kernel or '(version unknown)'}, {report.capture_bytes:,} bytes"
    )


def describe(report: "ImportReport") -> str:
    """The report as text."""
    from physmem.cli.output import facts, paint, table

    states = [
        name for name, there in (("start", report.has_state0), ("end", report.has_state1)) if there
    ]
    pairs = [
        ("kernel", report.kernel or "unknown"),
        ("rules", f"Linux {report.profile}"),
        ("trace", f"{report.lines:,} lines, {report.trace_bytes:,} bytes"),
        ("states", " and ".join(states) or "none: nothing can be replayed"),
        ("lost events", f"{report.lost:,}" if report.lost else "none"),
        ("failed allocations", f"{report.failed:,}"),
        ("frees of frames never seen allocated", f"{report.unknown_frees:,}"),
    ]
    events = [(name, f"{count:,}") for name, count in report.events.items()]
    events += [(f"{name} (not read)", f"{count:,}") for name, count in report.unknown.items()]
    sections = [
        f"{paint('Import', 'bold')} of {report.source}\n{facts(pairs)}",
        table(("event", "count"), events),
    ]
    if report.notes or report.truncated:
        notes = list(report.notes)
        if report.truncated:
            notes.insert(0, "the trace ends early; what is missing is not in the capture")
        sections.append("\n".join(f"  note: {text}" for text in notes))
    sections.append(
        f"{paint('Wrote', 'green', 'bold')} {report.output}: {report.capture_bytes:,} bytes,"
        f" {report.seconds:.2f} s ({report.lines_per_second / 1e6:.1f} million lines per second)"
    )
    return "\n\n".join(sections)
