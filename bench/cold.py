# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the first replay takes with nothing compiled, and the second with everything kept."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

_REPLAY = """
import sys, time
start = time.perf_counter()
from physmem.lib.jit import ready
from physmem.replay.engine import replay
from physmem.replay.lowering import lower
ready(replay), ready(lower)
kernels = time.perf_counter() - start
from physmem.replay.session import replay_capture
replay_capture(sys.argv[1])
print(kernels, time.perf_counter() - start)
"""


def measure_cold(path: Path) -> dict[str, float]:
    """Seconds until both kernels of a replay are ready, and until a replay is done; both twice."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="physmem-bench-") as folder:
        environment = {**os.environ, "PHYSMEM_CACHE_DIR": folder}
        for name in ("cold", "warm"):
            done = subprocess.run(
                [sys.executable, "-c", _REPLAY, str(path)],
                check=True,
                capture_output=True,
                text=True,
                env=environment,
            )
            kernels, whole = map(float, done.stdout.split())
            found[f"{name}_kernels_s"] = kernels
            found[f"{name}_replay_s"] = whole
    return found
