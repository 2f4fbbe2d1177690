# SPDX-License-Identifier: GPL-2.0-or-later
"""The one place that knows Numba: kernels, their declared types, and where machine code is kept.

A kernel is a function whose type hints are its only signature. It is compiled on first use and kept
on disk; callers convert their arguments to the hints, so that narrow integers never multiply the
variants. Records travel as bare pointers (`struct.py`).

Private interfaces of Numba used here, each with its fallback and its test (tests/unit/test_jit.py):
`Dispatcher.get_call_template` (compile the declared signature when a caller is typed; fallback:
compile at import) and `RecordAttribute.generic_resolve` (arrays get a type of their own, `Far`).

Why `Far` and not an array of Numba: address and length of a struct's array never change while a
kernel runs, and no kernel counts from the end. Said to LLVM, this saves the loads and the test for
a negative index at every access: up to half of the time of a replay.
"""

import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np

from physmem.lib import struct as st
from physmem.lib.errors import PolicyError

P = ParamSpec("P")
R = TypeVar("R")

PURE = st.PURE
KERNELS: list[str] = []
"""Qualified name of every kernel, in order of declaration (for docs, lint and benchmarks)."""

RAISED = -(1 << 62)
"""Answer of a hook that raised an exception."""
_HOOKS: list[tuple[int, str, Any]] = []
"""Address, name and code of each hook: records may hold the address till the process ends."""

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


def hook_name(address: int) -> str:
    """Qualified name of the function behind a hook's address, "" if there is none."""
    return next((name for at, name, _ in _HOOKS if at == address), "")


def _keep_hook(address: int, fn: Callable[..., Any], code: Any) -> int:
    _HOOKS.append((address, fn.__qualname__, code))
    return address


if PURE:

    def hook(fn: Callable[..., int], cls: type[Any]) -> int:  # noqa: ARG001 - as compiled
        """Address by which `call_hook` finds `fn`."""
        return _keep_hook(id(fn), fn, fn)

    def call_hook(address: int, record: Any, a: int, b: int, c: int) -> int:
        """Call a hook; RAISED when it fails, or answers no whole number."""
        try:
            answer = ctypes.cast(address, ctypes.py_object).value(record, a, b, c)
        except Exception:  # noqa: BLE001 - whatever a policy does must not leave a list half made
            return RAISED
        fits = isinstance(answer, int) and -(1 << 63) <= answer < 1 << 63
        return int(answer) if fits else RAISED

    def kernel(fn: Callable[P, R]) -> Callable[P, R]:
        """Leave `fn` as it is: plain Python over ctypes views."""
        KERNELS.append(f"{fn.__module__}.{fn.__qualname__}")
        return fn

    inlined = kernel

    def prefetch(array: Any, index: int) -> None:
        """Nothing."""

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
    import operator

    import numba
    from llvmlite import ir  # type: ignore[import-untyped]  # ships no types
    from numba import carray, cfunc, from_dtype, njit, types
    from numba.core import cgutils
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.typing import arraydecl
    from numba.core.typing.templates import AbstractTemplate, infer_global, signature
    from numba.extending import intrinsic, lower_builtin, lower_getattr, models, register_model
    from numba.np import arrayobj

    numba.config.CACHE_DIR = str(_cache_dir(numba.__version__))

    _OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}
    _bound: set[str] = set()

    class Far(types.Type):  # type: ignore[misc]  # Numba ships no types
        """An array of a record, inside it or elsewhere: where it begins and how long it is."""

        def __init__(self, dtype: Any) -> None:
            self.dtype = dtype
            super().__init__(name=f"Far({dtype})")

    @register_model(Far)
    class _FarModel(models.StructModel):  # type: ignore[misc]  # as above
        def __init__(self, manager: Any, far: Any) -> None:
            super().__init__(manager, far, [("data", types.voidptr), ("size", types.int64)])

    def _resolve_field(_self: Any, record: Any, attr: str) -> Any:
        """Type of a field, or of the array that a field points to."""
        if attr in record.fields:
            found = record.fields[attr].type
            return Far(found.dtype) if isinstance(found, types.NestedArray) else found
        if attr in st.BOUND and f"{attr}_addr" in record.fields:
            return Far(from_dtype(st.BOUND[attr]))
        return None

    arraydecl.RecordAttribute.generic_resolve = _resolve_field

    @intrinsic  # type: ignore[untyped-decorator]  # Numba ships no types
    def _pointer(_context: Any, _address: Any) -> Any:
        signature = types.voidptr(types.int64)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

        return signature, generate

    def _bind_arrays() -> None:
        """Teach Numba `record.name` for every array of the structs declared so far."""
        names = set(st.BOUND)
        for dtype in st.CTYPE_OF_DTYPE:
            names |= {name for name in dtype.names or () if dtype[name].shape}
        for name in names - _bound:
            _bound.add(name)
            _bind(name)

    def _bind(name: str) -> None:
        @lower_getattr(types.Record, name)  # type: ignore[untyped-decorator]  # as above
        def _attribute(context: Any, builder: Any, record: Any, value: Any) -> Any:
            far = _resolve_field(None, record, name)
            if not isinstance(far, Far):  # a scalar of the same name in another struct
                return arrayobj.record_getattr(context, builder, record, value, name)

            def field(part: str) -> Any:
                kind = context.get_data_type(record.fields[part].type)
                return cgutils.get_record_member(builder, value, record.offset(part), kind)

            view = cgutils.create_struct_proxy(far)(context, builder)
            if name in record.fields:
                view.data = builder.bitcast(field(name), view.data.type)
                view.size = context.get_constant(types.int64, record.fields[name].type.nitems)
                return view._getvalue()  # noqa: SLF001 - how Numba's own proxies are read
            loads = [builder.load(field(f"{name}_{part}")) for part in ("addr", "len")]
            for load in loads:
                load.set_metadata("invariant.load", builder.module.add_metadata([]))
            view.data = builder.inttoptr(loads[0], view.data.type)
            view.size = loads[1]
            return view._getvalue()  # noqa: SLF001 - as above

    @infer_global(operator.getitem)
    class _GetItem(AbstractTemplate):  # type: ignore[misc]  # as above
        def generic(self, args: Any, kws: Any) -> Any:  # noqa: ARG002 - Numba calls it so
            if isinstance(args[0], Far) and isinstance(args[1], types.Integer):
                return signature(args[0].dtype, *args)
            return None

    @infer_global(operator.setitem)
    class _SetItem(AbstractTemplate):  # type: ignore[misc]  # as above
        def generic(self, args: Any, kws: Any) -> Any:  # noqa: ARG002 - as above
            if isinstance(args[0], Far) and isinstance(args[1], types.Integer):
                return signature(types.void, args[0], args[1], args[0].dtype)
            return None

    @infer_global(len)
    class _Len(AbstractTemplate):  # type: ignore[misc]  # as above
        def generic(self, args: Any, kws: Any) -> Any:  # noqa: ARG002 - as above
            return signature(types.int64, *args) if isinstance(args[0], Far) else None

    def _element(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        """Pointer to an element."""
        far = sig.args[0]
        view = cgutils.create_struct_proxy(far)(context, builder, value=args[0])
        index = context.cast(builder, args[1], sig.args[1], types.int64)
        if numba.config.BOUNDSCHECK or context.enable_boundscheck:
            outside = builder.icmp_unsigned(">=", index, view.size)
            with builder.if_then(outside, likely=False):
                context.call_conv.return_user_exc(builder, IndexError, ("index out of bounds",))
        kind = context.get_data_type(far.dtype)
        size = context.get_constant(types.int64, context.get_abi_sizeof(kind))
        place = builder.gep(view.data, [builder.mul(index, size)])
        return builder.bitcast(place, kind.as_pointer())

    @lower_builtin(operator.getitem, Far, types.Integer)  # type: ignore[untyped-decorator]
    def _getitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _element(context, builder, sig, args)
        if isinstance(sig.return_type, types.Record):
            return place
        return context.unpack_value(builder, sig.return_type, place)

    @lower_builtin(operator.setitem, Far, types.Integer, types.Any)  # type: ignore[untyped-decorator]
    def _setitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _element(context, builder, sig, args)
        context.pack_value(builder, sig.args[0].dtype, args[2], place)
        return context.get_dummy_value()

    @lower_builtin(len, Far)  # type: ignore[untyped-decorator]  # as above
    def _len(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0]).size

    @intrinsic  # type: ignore[untyped-decorator]  # as above
    def prefetch(_context: Any, array: Any, index: Any) -> Any:
        """Ask for the cache line of an element of a record's array, and do not wait for it.

        It changes nothing, and an index outside of the array does no harm. Worth it where
        many elements in unrelated places are read soon: their loads then overlap.
        """
        if not isinstance(array, Far) or not isinstance(index, types.Integer):
            return None
        signature = types.void(array, index)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            ir = cgutils.ir
            place = _element(context, builder, sig, args)
            place = builder.bitcast(place, ir.IntType(8).as_pointer())
            number = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
            call = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
            builder.call(call, [place, number(0), number(3), number(1)])  # read, keep, data
            return context.get_dummy_value()

        return signature, generate

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
        if dispatcher.signatures:
            return
        with global_compiler_lock:  # Numba's own, which another thread may hold already
            if not dispatcher.signatures:
                _bind_arrays()
                dispatcher.compile(dispatcher.declared)
                dispatcher.disable_compile()

    @intrinsic  # type: ignore[untyped-decorator]  # as above
    def call_hook(_context: Any, address: Any, record: Any, a: Any, b: Any, c: Any) -> Any:  # noqa: ARG001 - the names and their number matter
        """Call a hook; RAISED when it fails."""
        signature = types.int64(types.int64, record, types.int64, types.int64, types.int64)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            number = ir.IntType(64)
            kinds = [context.get_value_type(sig.args[1]), number, number, number]
            function = ir.FunctionType(number, kinds)
            return builder.call(builder.inttoptr(args[0], function.as_pointer()), args[1:])

        return signature, generate

    def hook(fn: Callable[..., int], cls: type[Any]) -> int:
        """Address of machine code of `fn(record, a, b, c)`; kernels call it by `call_hook`.

        Array indices are checked in it: one that is out of bounds is an exception.

        Raises
        ------
        PolicyError
            It cannot be compiled.
        """
        record = from_dtype(st.dtype_of(cls))
        number = types.int64
        with global_compiler_lock:
            _bind_arrays()
            try:
                inner = njit(boundscheck=True, **_OPTIONS)(fn)
                inner.compile(number(record, number, number, number))

                def entry(where: Any, a: int, b: int, c: int) -> int:
                    try:
                        return inner(carray(where, 1)[0], a, b, c)  # type: ignore[no-any-return]
                    except Exception:  # noqa: BLE001 - all that Numba knows
                        return RAISED

                made = cfunc(number(types.CPointer(record), number, number, number))(entry)
            except numba.core.errors.NumbaError as error:
                plain = re.sub("\x1b\\[[0-9;]*m", "", str(error))
                lines = [line.strip() for line in plain.splitlines() if line.strip()]
                reason = (lines[1:] or lines)[0]
                raise PolicyError(
                    f"policy function {fn.__qualname__} cannot be compiled: {reason}",
                    function=fn.__name__,
                ) from None
        return _keep_hook(made.address, fn, made)

    def kernel(fn: Callable[P, R]) -> Callable[P, R]:
        """Compile `fn` on first use with the one signature that its type hints state."""
        return _kernel(fn, inline=False)

    def inlined(fn: Callable[P, R]) -> Callable[P, R]:
        """Compile as `kernel` does and put the code into each caller: for the path of a request."""
        return _kernel(fn, inline=True)

    def _kernel(fn: Callable[P, R], *, inline: bool) -> Callable[P, R]:
        KERNELS.append(f"{fn.__module__}.{fn.__qualname__}")
        dispatcher: Any = njit(cache=True, forceinline=inline, **_OPTIONS)(fn)
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
