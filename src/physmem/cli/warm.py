# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem warm`: compile all kernels now, so that nothing has to be compiled later."""

import sys
from typing import Any

from physmem.cli.options import Quiet

_PACKAGES = ("mm", "machine", "trace", "replay", "lab", "experiments")


def warm(quiet: Quiet = False) -> None:
    """Compile all kernels now and keep the machine code in the cache directory."""
    import time

    from physmem.cli.output import note
    from physmem.cli.progress import Bar
    from physmem.lib.jit import PURE, cache_root, is_compiled, ready

    if PURE:
        note("PHYSMEM_PURE is set: there is nothing to compile", quiet=quiet)
        return
    kernels = all_kernels()
    missing = [kernel for kernel in kernels if not is_compiled(kernel)]
    start = time.monotonic()
    if missing:
        note(f"compiling {len(missing)} of {len(kernels)} kernels ...", quiet=quiet)
    with Bar("compile", "kernels", quiet=quiet) as bar:
        for done, kernel in enumerate(missing):
            bar(done, len(missing))
            ready(kernel)
    seconds = time.monotonic() - start
    print(f"{len(kernels)} kernels ready in {cache_root()} ({len(missing)} new, {seconds:.1f} s)")


def all_kernels() -> list[Any]:
    """Every kernel of the package."""
    import importlib
    import pkgutil

    from physmem.lib.jit import KERNELS

    for package in _PACKAGES:
        folder = importlib.import_module(f"physmem.{package}")
        for module in pkgutil.iter_modules(folder.__path__, f"physmem.{package}."):
            importlib.import_module(module.name)
    found = []
    for qualified in KERNELS:
        module_name, _, name = qualified.rpartition(".")
        kernel = getattr(sys.modules.get(module_name), name, None)
        if kernel is not None:
            found.append(kernel)
    return found
