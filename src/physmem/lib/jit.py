# SPDX-License-Identifier: GPL-2.0-or-later
"""The one place that knows Numba: kernels, their declared types, and where machine code is kept.

A kernel is a function whose type hints are its only signature. It is compiled on first use and kept
on disk; callers convert their arguments to the hints, so that narrow integers never multiply the
variants. Records travel as bare pointers (`struct.py`).

Private interfaces of Numba used here, each with its fallback and its test (tests/unit/test_jit.py):
`Dispatcher.get_call_template` (compile the declared signature when a caller is typed; fallback:
compile at import) and `RecordAttribute.generic_resolve` (an unknown field is passed on, so that an
array attribute registered after the first compilation is still found; fallback: all structs are
declared before the first compilation, as they are within this package).
"""

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np

from physmem.lib import struct as st

P = ParamSpec("P")
R = TypeVar("R")

PURE = st.PURE
KERNELS: list[str] = []
"""Qualified name of every kernel, in order of declaration (for docs, lint and benchmarks)."""

_PACKAGE = Path(__file__).parents[1]
_KEEP_CACHES = 4


def cache_root() -> Path:
    """Directory of the compiled kernels: PHYSMEM_CACHE_DIR, else the user's cache directory."""
    chosen = os.environ.get("PHYSMEM_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "physmem"
    with contextlib.suppress(RuntimeError):
        return Path.home() / ".cache" / "physmem"
    return Path(tempfile.gettempdir()) / "physmem-cache"


def _digest(version: str) -> str:
    """Name this state of all sources: Numba does not see changes in files that a kernel calls."""
    name = hashlib.blake2b(f"{version} {sys.version_info[:2]}".encode(), digest_size=8)
    name.update(os.environ.get("NUMBA_BOUNDSCHECK", "0").encode())
    for path in sorted(_PACKAGE.rglob("*.py")):
        name.update(path.name.encode())
        name.update(path.read_bytes())
    return name.hexdigest()


def _cache_dir(version: str) -> Path:
    """Make the cache directory of these sources and drop the oldest of other sources."""
    root = cache_root()
    mine = root / _digest(version)
    try:
        mine.mkdir(parents=True, exist_ok=True)
        (mine / ".writable").touch()
    except OSError:
        mine = Path(tempfile.mkdtemp(prefix="physmem-cache-"))
        return mine
    with contextlib.suppress(OSError):
        others = [path for path in root.iterdir() if path.is_dir() and path != mine]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[_KEEP_CACHES - 1 :]:
            shutil.rmtree(path, ignore_errors=True)
    return mine


if PURE:

    def kernel(fn: Callable[P, R]) -> Callable[P, R]:
        """Leave `fn` as it is: plain Python over ctypes views."""
        KERNELS.append(f"{fn.__module__}.{fn.__qualname__}")
        return fn

    def ready(fn: Callable[P, R]) -> Callable[P, R]:
        """Make a kernel callable from Python: NumPy arrays become ctypes views."""

        def call(*args: Any) -> Any:
            views = [_view(arg) if isinstance(arg, np.ndarray) else arg for arg in args]
            return cast("Any", fn)(*views)

        return cast("Callable[P, R]", call)

    _CTYPES = {
        scalar.dtype: scalar.ctype
        for scalar in cast("Any", (st.u8, st.u16, st.u32, st.i8, st.i32, st.i64))
    }

    def _view(array: np.ndarray[Any, Any]) -> Any:
        ctype = _CTYPES.get(array.dtype)
        if ctype is None:
            ctype = st.CTYPE_OF_DTYPE[array.dtype]
        view = (ctype * len(array)).from_address(st.address(array))
        view._keep = array  # noqa: SLF001 - the view must outlive the array's last other owner
        return view

    def pointer_to(cls: type[R]) -> Callable[[int], R]:
        """Function from an address to the record there."""
        return cast("Callable[[int], R]", cast("Any", cls).ctype.from_address)

    def is_compiled(fn: Callable[..., Any]) -> bool:  # noqa: ARG001 - one interface in both modes
        """Tell whether calling the kernel now would not have to compile."""
        return True

else:
    import numba
    from numba import carray, from_dtype, njit, types
    from numba.core.typing import arraydecl
    from numba.extending import intrinsic, overload_attribute

    numba.config.CACHE_DIR = str(_cache_dir(numba.__version__))

    _OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}
    _bound: set[str] = set()

    def _resolve_field(_self: Any, record: Any, attr: str) -> Any:
        return record.fields[attr].type if attr in record.fields else None

    if hasattr(arraydecl, "RecordAttribute"):
        arraydecl.RecordAttribute.generic_resolve = _resolve_field

    @intrinsic  # type: ignore[untyped-decorator]  # Numba ships no types
    def _pointer(_context: Any, _address: Any) -> Any:
        signature = types.voidptr(types.int64)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

        return signature, generate

    def _bind_arrays() -> None:
        """Teach Numba `record.name` for every array that a struct stores elsewhere."""
        for name, dtype in st.BOUND.items():
            if name not in _bound:
                _bound.add(name)
                _bind(name, dtype)

    def _bind(name: str, dtype: np.dtype[Any]) -> None:
        space: dict[str, Any] = {"carray": carray, "pointer": _pointer, "dtype": dtype}
        text = f"def view(r): return carray(pointer(r.{name}_addr), (r.{name}_len,), dtype)"
        exec(text, space)  # noqa: S102 - the attribute's name is known only here

        @overload_attribute(types.Record, name)
        def _attribute(r):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - Numba compares
            return space["view"] if f"{name}_addr" in r.fields else None

    def _numba_type(annotation: Any) -> Any:
        scalars = {None: types.void, int: types.int64, bool: types.boolean, float: types.float64}
        if annotation in scalars:
            return scalars[annotation]
        of = st.element(annotation)
        if of is not None:
            return from_dtype(of.dtype)[::1]
        return from_dtype(st.dtype_of(annotation))

    def _signature(fn: Callable[..., Any]) -> Any:
        import inspect

        hints = inspect.get_annotations(fn, eval_str=True)
        result = _numba_type(hints.pop("return", None))
        return result(*[_numba_type(hint) for hint in hints.values()])

    def _compile(dispatcher: Any) -> None:
        if not dispatcher.signatures:
            _bind_arrays()
            dispatcher.compile(dispatcher.declared)
            dispatcher.disable_compile()

    def kernel(fn: Callable[P, R]) -> Callable[P, R]:
        """Compile `fn` on first use with the one signature that its type hints state."""
        KERNELS.append(f"{fn.__module__}.{fn.__qualname__}")
        dispatcher: Any = njit(cache=True, **_OPTIONS)(fn)
        dispatcher.declared = _signature(fn)
        inherited = getattr(dispatcher, "get_call_template", None)
        if inherited is None:
            _compile(dispatcher)
            return cast("Callable[P, R]", dispatcher)

        def get_call_template(args: Any, kws: Any) -> Any:
            _compile(dispatcher)
            return inherited(args, kws)

        dispatcher.get_call_template = get_call_template
        return cast("Callable[P, R]", dispatcher)

    def ready(fn: Callable[P, R]) -> Callable[P, R]:
        """Make a kernel callable from Python: compile or load it now."""
        _compile(fn)
        return fn

    def pointer_to(cls: type[R]) -> Callable[[int], R]:
        """Function from an address to the record there (called inside kernels)."""
        dtype = st.dtype_of(cls)

        def at(address: int) -> Any:
            return carray(_pointer(address), (1,), dtype)[0]

        return cast("Callable[[int], R]", njit(**_OPTIONS)(at))

    def is_compiled(fn: Callable[..., Any]) -> bool:
        """Tell whether machine code of the kernel is loaded or lies in the cache."""
        dispatcher: Any = fn
        if dispatcher.signatures:
            return True
        with contextlib.suppress(Exception):
            index = Path(dispatcher._cache._cache_file._index_path)  # noqa: SLF001 - only a hint
            return index.exists()
        return False
