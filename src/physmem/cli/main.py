# SPDX-License-Identifier: GPL-2.0-or-later
"""Entry point of the command line: whatever happens becomes an exit code and at most one line."""

import gc
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

EQUAL = 0
DIVERGED = 1
BAD_INPUT = 2
INTERNAL = 3
INTERRUPTED = 130
TERMINATED = 143
PIPE_CLOSED = 141

_LONGEST_REASON = 200


def main() -> NoReturn:
    """Run the command that the arguments name, then leave.

    The interpreter is not taken down piece by piece: giving back the columns of a long trace and
    the compiled code would take longer than many a command.
    """
    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            code = code or PIPE_CLOSED
        except OSError as error:
            code = code or _say(_os_error(error), BAD_INPUT)
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command; the exit code. Nothing but SystemExit of shell completion comes out.

    Examples
    --------
    >>> run(["no-such-command"])
    2
    """
    # One short run makes no garbage worth collecting, and imports make many objects.
    gc.disable()
    previous = signal.signal(signal.SIGTERM, _terminate) if _is_main_thread() else None
    try:
        return _dispatch(arguments)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except SystemExit as leave:
        if isinstance(leave.__context__, BrokenPipeError):
            return PIPE_CLOSED
        if leave.code == TERMINATED:
            return _say("terminated", TERMINATED)
        raise
    except BrokenPipeError:
        return PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - the last resort: one line instead of a traceback
        return _explain(error)
    finally:
        gc.enable()
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _is_main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()


def _terminate(_number: int, _frame: Any) -> NoReturn:
    """Leave by an exception, so that unfinished files are removed on the way."""
    raise SystemExit(TERMINATED)


def _dispatch(arguments: Sequence[str]) -> int:
    """Run the command; typer gives back the code of `Exit`, and 130 after an interrupt."""
    from physmem.cli.app import command

    code = command().main(args=list(arguments), prog_name="physmem", standalone_mode=False)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return code if isinstance(code, int) else EQUAL


def _explain(error: Exception) -> int:
    """Say in one line what went wrong."""
    from physmem.lib.errors import PhysmemError

    if os.environ.get("PHYSMEM_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, PhysmemError):
        return _say(str(error), BAD_INPUT)
    if type(error).__name__ == "Abort":  # older typer: an interrupt, or the end of its input
        return _say("interrupted", INTERRUPTED)
    usage = getattr(error, "format_message", None)
    if usage is not None:  # wrong arguments, found by typer
        where = getattr(getattr(error, "ctx", None), "command_path", "physmem")
        return _say(f"{usage().rstrip('.')} (try '{where} --help')", BAD_INPUT)
    if isinstance(error, OSError):
        return _say(_os_error(error), BAD_INPUT)
    if isinstance(error, UnicodeDecodeError):
        return _say(f"an input is damaged: bytes that are no text ({error.reason})", BAD_INPUT)
    if isinstance(error, MemoryError):
        return _say("not enough memory for this input", BAD_INPUT)
    reason = " ".join(str(error).split())
    if len(reason) > _LONGEST_REASON:
        reason = f"{reason[:_LONGEST_REASON]} ..."
    what = f"internal error: {type(error).__name__}: {reason}"
    return _say(f"{what}; please report it (PHYSMEM_DEBUG=1 shows where)", INTERNAL)


def _os_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _say(text: str, code: int) -> int:
    """Write one line to stderr, without control characters; return the code."""
    line = "".join(sign for sign in " ".join(text.split()) if sign.isprintable())
    try:
        print(f"physmem: {line}", file=sys.stderr, flush=True)
    except OSError:  # nobody listens
        return code
    return code
