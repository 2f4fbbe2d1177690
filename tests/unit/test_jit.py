# SPDX-License-Identifier: GPL-2.0-or-later
"""Structs and kernels: one memory layout for both modes, and the private interfaces of Numba."""

import ctypes
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

import physmem
from physmem.lib import jit, struct
from physmem.lib.struct import Array, address, attach, dtype_of, i8, i32, i64, u8, u16, u32
from physmem.machine.machine import Machine
from physmem.mm import mmzone

pytestmark = pytest.mark.pure

STRUCTS = [
    value for value in vars(mmzone).values() if isinstance(value, type) and hasattr(value, "ctype")
]
PACKAGE = Path(physmem.__file__).parent


@struct.struct
class JitInner:
    """Padding in the middle and at the end."""

    small: u8
    wide: i64
    last: u16


@struct.struct
class JitOuter:
    """Everything that a struct may hold."""

    byte: i8
    inside: Annotated[Array[JitInner], 3]
    numbers: Annotated[Array[u32], 5]
    jit_inner: Array[JitInner]
    jit_numbers: Array[i32]
    last: u8


def offsets(dtype):
    return {name: dtype.fields[name][1] for name in dtype.names}


@pytest.mark.parametrize("cls", [*STRUCTS, JitInner, JitOuter], ids=lambda cls: cls.__name__)
def test_numpy_and_ctypes_agree_on_every_byte(cls):
    dtype, ctype = dtype_of(cls), cls.ctype
    assert dtype.itemsize == ctypes.sizeof(ctype)
    assert offsets(dtype) == {name: getattr(ctype, name).offset for name, _ in ctype._fields_}
    for name, field in ctype._fields_:
        assert dtype.fields[name][0].itemsize == ctypes.sizeof(field)


def test_a_page_is_sixteen_bytes():
    assert dtype_of(mmzone.Page).itemsize == 16


def test_a_value_written_by_one_is_read_by_the_other():
    record = np.zeros(1, dtype_of(JitOuter))
    view = JitOuter.ctype.from_address(address(record))
    record[0]["inside"][1]["wide"] = -5
    view.numbers[4] = 1 << 32 | 7  # wraps as in C
    assert view.inside[1].wide == -5
    assert record[0]["numbers"].tolist() == [0, 0, 0, 0, 7]


def test_an_array_elsewhere():
    record, numbers = np.zeros(1, dtype_of(JitOuter)), np.arange(4, dtype=np.int32)
    attach(record[0], "jit_numbers", numbers)
    view = JitOuter.ctype.from_address(address(record))
    assert list(view.jit_numbers) == [0, 1, 2, 3]
    view.jit_numbers[2] = 9
    assert numbers.tolist() == [0, 1, 9, 3]
    attach(record[0], "jit_numbers", np.arange(2, dtype=np.int32))
    assert len(view.jit_numbers) == 2


def test_an_attribute_stands_for_one_element_type():
    class JitSecond:
        mem_map: Array[u8]

    with pytest.raises(TypeError, match="mem_map"):
        struct.struct(JitSecond)


@jit.kernel
def jit_first(m: mmzone.Memory) -> int:
    """A kernel that is compiled before the struct below exists."""
    return m.mem_map[1].order


@jit.kernel
def jit_sum(numbers: Array[i64]) -> int:
    """Sum of an array of its own."""
    total = 0
    for i in range(len(numbers)):
        total += numbers[i]
    return total


def test_a_kernel_takes_arrays():
    assert jit.ready(jit_sum)(np.array([1, 2, 3], np.int64)) == 6
    assert f"{__name__}.jit_sum" in jit.KERNELS


def test_kernels_of_a_machine_are_listed_by_name():
    assert "physmem.mm.buddy.free_one_page" in jit.KERNELS
    assert jit.is_compiled(Machine.build("4MiB")._alloc) or jit.PURE


def run(code, **environment):
    """Run code in a process of its own; what it prints."""
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


SCRIPT = """
    import numpy as np
    from physmem.lib import struct as st
    from physmem.lib.jit import kernel, pointer_to, ready
    from physmem.lib.struct import Array, i64, struct, u8

    @struct
    class Early:
        count: i64
        early_bytes: Array[u8]

    early_at = pointer_to(Early)

    @kernel
    def first(h: int) -> int:
        e = early_at(h)
        return e.early_bytes[1] + e.count

    def record(cls, name, array):
        made = np.zeros(1, cls.dtype)
        st.attach(made[0], name, array)
        made[0]["count"] = 100
        return made

    data = np.array([3, 4, 5], np.uint8)
    one = record(Early, "early_bytes", data)
    print(ready(first)(st.address(one)))

    @struct
    class Late:
        count: i64
        late_numbers: Array[i64]

    late_at = pointer_to(Late)

    @kernel
    def inner(late: Late, at: int) -> int:
        return late.late_numbers[at] + late.count

    @kernel
    def second(h: int) -> int:
        return inner(late_at(h), 2)

    numbers = np.array([7, 8, 9], np.int64)
    two = record(Late, "late_numbers", numbers)
    print(ready(second)(st.address(two)), ready(first)(st.address(one)))
"""


def script(tmp_path, before=""):
    path = tmp_path / "late_struct.py"
    path.write_text(textwrap.dedent(before) + textwrap.dedent(SCRIPT))
    return f"import runpy; runpy.run_path({str(path)!r}, run_name='late_struct')"


def test_an_array_registered_after_the_first_compilation_is_found(tmp_path):
    assert run(script(tmp_path), PHYSMEM_CACHE_DIR=str(tmp_path)).split() == ["104", "109", "104"]


@pytest.mark.skipif(jit.PURE, reason="nothing is compiled")
def test_without_get_call_template_kernels_are_compiled_at_once(tmp_path):
    before = """
        import physmem.lib.jit as jit

        plain = jit.njit

        def njit(**options):
            def wrap(fn):
                made = plain(**options)(fn)

                class Without:
                    def __getattr__(self, name):
                        if name == "get_call_template":
                            raise AttributeError(name)
                        return getattr(made, name)

                    def __setattr__(self, name, value):
                        setattr(made, name, value)

                return Without()

            return wrap

        seen = []
        compiled = jit._compile
        jit._compile = lambda dispatcher: (seen.append(1), compiled(dispatcher))

        @jit.kernel
        def lazy(a: int) -> int:
            return a + 1

        assert not seen, "a kernel was compiled before it was needed"
        jit.njit = njit

        @jit.kernel
        def eager(a: int) -> int:
            return a + 2

        assert seen == [1]
        assert eager.signatures
        jit.njit = plain
    """
    assert run(script(tmp_path, before), PHYSMEM_CACHE_DIR=str(tmp_path)).split()[0] == "104"


@pytest.mark.skipif(jit.PURE, reason="nothing is compiled")
def test_a_kernel_has_one_variant():
    made = jit.ready(jit_sum)
    made(np.arange(3, dtype=np.int64))
    with pytest.raises(TypeError):
        made(np.arange(3, dtype=np.int32))
    assert len(made.signatures) == 1


# -- the cache ------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path):
    """A copy of the package's layers that the cache's name depends on."""
    shutil.copytree(PACKAGE / "lib", tmp_path / "src" / "physmem" / "lib")
    (tmp_path / "src" / "physmem" / "mm").mkdir()
    (tmp_path / "src" / "physmem" / "__init__.py").write_text("")
    (tmp_path / "src" / "physmem" / "mm" / "one.py").write_text("SIZE = 1\n")
    return tmp_path / "src" / "physmem"


DIGEST = "from physmem.lib import jit; print(jit._digest('0.68'))"


def digest(package, code=DIGEST, **environment):
    environment.setdefault("PHYSMEM_CACHE_DIR", str(package.parent.parent / "cache"))
    return run(code, PYTHONPATH=str(package.parent), **environment).strip()


def test_the_cache_is_named_by_the_sources(package):
    first = digest(package)
    assert digest(package) == first
    (package / "mm" / "one.py").write_text("SIZE = 2\n")
    changed = digest(package)
    assert changed != first
    (package / "mm" / "one.py").write_text("SIZE = 1\n")
    assert digest(package) == first
    (package / "mm" / "two.py").write_text("")
    assert digest(package) != first
    (package / "mm" / "two.py").unlink()
    assert digest(package, DIGEST.replace("0.68", "0.69")) != first
    assert digest(package, NUMBA_BOUNDSCHECK="1") != first


@pytest.mark.skipif(jit.PURE, reason="nothing is compiled")
def test_old_caches_go_and_the_newest_stay(package, tmp_path):
    root = tmp_path / "cache"
    for number in range(6):
        (package / "mm" / "one.py").write_text(f"SIZE = {number}\n")
        newest = digest(
            package, "import numba; from physmem.lib import jit; print(numba.config.CACHE_DIR)"
        )
        os.utime(newest, (number, number))
    left = sorted(path.name for path in root.iterdir())
    assert len(left) == 4
    assert Path(newest).name in left


@pytest.mark.skipif(jit.PURE, reason="nothing is compiled")
def test_a_root_that_cannot_be_written_is_replaced(package, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    code = "import numba; from physmem.lib import jit; print(numba.config.CACHE_DIR)"
    chosen = Path(digest(package, code, PHYSMEM_CACHE_DIR=str(blocked / "below")))
    assert "physmem-cache-" in chosen.name
    shutil.rmtree(chosen)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("PHYSMEM_CACHE_DIR", "here")
    assert jit.cache_root() == Path("here")
    monkeypatch.delenv("PHYSMEM_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert jit.cache_root() == tmp_path / "physmem"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert jit.cache_root() == Path.home() / ".cache" / "physmem"


def test_plain_mode_needs_no_numba():
    code = """
        import sys
        sys.modules["numba"] = None
        from physmem.machine.machine import Machine
        machine = Machine.build("4MiB")
        print(machine.alloc_pages(), "llvmlite" in sys.modules)
    """
    assert run(code, PHYSMEM_PURE="1").split()[1] == "False"


def test_both_modes_give_the_same_frames():
    code = """
        import hashlib, random
        from physmem.machine.machine import Machine
        machine, rng, live, seen = Machine.build("20MiB", cpus=2), random.Random(5), [], []
        machine.tracing()
        for step in range(400):
            if rng.random() < 0.6:
                order = rng.choice([0, 0, 1, 3, 5, 9])
                gfp = rng.choice([0xCC0, 0x100CCA, 0xCD0, 0xA20])
                try:
                    live.append((machine.alloc_pages(order, gfp, cpu=step % 2), order))
                except MemoryError:
                    live.append((None, 0))
                seen.append(live[-1])
            elif live:
                pfn, order = live.pop(rng.randrange(len(live)))
                if pfn is not None:
                    machine.free_pages(pfn, order, cpu=step % 2)
        seen += map(repr, machine.events())
        seen.append(machine.snapshot())
        print(hashlib.sha256(repr(seen).encode()).hexdigest(), len(seen))
    """
    assert run(code, PHYSMEM_PURE="1") == run(code, PHYSMEM_PURE="0")


def test_one_name_is_an_array_elsewhere_or_a_plain_field_never_both():
    @struct.struct
    class Holder:
        far_or_near: Array[u8]

    with pytest.raises(TypeError, match="array stored elsewhere has this name"):

        @struct.struct
        class Other:
            far_or_near: i64

    @struct.struct
    class Plain:
        near_or_far: i64

    with pytest.raises(TypeError, match="plain field"):

        @struct.struct
        class Another:
            near_or_far: Array[u8]
