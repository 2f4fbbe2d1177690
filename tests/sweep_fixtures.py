# SPDX-License-Identifier: GPL-2.0-or-later
"""Studies of captures that take no time: tiny files, and a measure that only computes with them."""

from pathlib import Path

from physmem.lab.study import read_study
from physmem.lab.sweep import sweep
from physmem.lab.sweep_plan import plan_study
from physmem.trace.capture import write_capture
from physmem.trace.events import Events
from physmem.trace.info import CaptureInfo

MEASURE = """
import hashlib, os, signal, time
from pathlib import Path

from physmem.lib.errors import BadRequestError


def evaluate(path, settings, seed):
    if settings.get("wrong") == "yes":
        raise BadRequestError(f"{path}: no such order")
    if settings.get("bug") == "yes":
        raise ZeroDivisionError("a bug of the measure")
    if settings.get("sleep"):
        time.sleep(float(settings["sleep"]))
    if settings.get("dies"):  # so often; a file counts
        with open(settings["dies"], "a+") as tally:
            tally.write("x")
            tally.flush()
            if tally.tell() <= int(settings.get("times", "1000")):
                os.kill(os.getpid(), signal.SIGKILL)
    data = Path(path).read_bytes() if os.path.exists(path) else path.encode()
    text = repr((sorted(settings.items()), seed)).encode()
    number = int.from_bytes(hashlib.blake2b(data + text, digest_size=6).digest(), "big")
    return {"free": number % 1000, "share": number / 2**48, "bytes": len(data), "zone": "Normal"}
"""


def tiny_capture(path, pfn):
    """Write a capture of one free."""
    events = Events.from_columns({"kind": [2], "pfn": [pfn]}, comms=["init"])
    write_capture(path, events, CaptureInfo(lines=1))
    return path


def make_study(folder, *, captures=2, body="", seeds=2, metric="share"):
    """Write a study with its captures and its measure; its path."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number in range(captures):
        tiny_capture(folder / f"c{number}.physmem", 7 + number)
    (folder / "measure.py").write_text(MEASURE)
    path = folder / "study.toml"
    path.write_text(
        'captures = ["*.physmem"]\n'
        f"seeds = {seeds}\n"
        'evaluator = "measure.py:evaluate"\n'
        f'[objective]\nmetric = "{metric}"\n'
        f"{body}"
    )
    return path


GRID = '[settings]\nmovablecore = ["0", "128M"]\nmobility = [true, false]\n'


class DirectPool:
    """Runs tasks here, in a chosen order."""

    def __init__(self, order=list):
        self.order = order
        self.ran = []

    def run(self, tasks):
        from physmem.lab.task import run_task

        for task in self.order(list(tasks)):
            yield None
            outcome = run_task(task, "here")
            self.ran.append(outcome)
            yield outcome

    def describe(self):
        return {"kind": "direct"}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def run_study(path, output, pool=None, **options):
    """Run a study; what `sweep` returns."""
    return sweep(plan_study(read_study(path)), output, pool or DirectPool(), **options)
