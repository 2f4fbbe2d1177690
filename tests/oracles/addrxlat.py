# SPDX-License-Identifier: GPL-2.0-or-later
"""libaddrxlat, a walker of the kdump tools, over our own bytes (it ships inside drgn's wheel).

It checks no permission and no reserved bit, and knows no Svnapot; but it knows every layout.
"""

import ctypes as ct
import importlib.util
from pathlib import Path

u64 = ct.c_uint64
MACHPHYS, VIRT = 1, 2


class Full(ct.Structure):
    _fields_ = [("addr", u64), ("space", ct.c_int)]


class Form(ct.Structure):
    _fields_ = [("pte", ct.c_int), ("nr", ct.c_ushort), ("bits", ct.c_ushort * 8)]


class Pgt(ct.Structure):
    _fields_ = [("root", Full), ("mask", u64), ("form", Form)]


class Meth(ct.Structure):
    _fields_ = [("kind", ct.c_int), ("target", ct.c_int), ("pgt", Pgt), ("pad", ct.c_uint8 * 64)]


class Step(ct.Structure):
    _fields_ = [
        ("ctx", ct.c_void_p),
        ("sys", ct.c_void_p),
        ("meth", ct.c_void_p),
        ("remain", ct.c_ushort),
        ("elemsz", ct.c_uint),
        ("base", Full),
        ("raw", u64),
        ("idx", u64 * 9),
    ]


class Buf(ct.Structure):
    _fields_ = [
        ("addr", Full),
        ("ptr", ct.c_void_p),
        ("size", ct.c_size_t),
        ("order", ct.c_int),
        ("put", ct.c_void_p),
        ("priv", ct.c_void_p),
    ]


GET = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.POINTER(Buf))
CAPS = ct.CFUNCTYPE(ct.c_ulong, ct.c_void_p)
PUT = ct.CFUNCTYPE(None, ct.c_void_p)


class Callbacks(ct.Structure):
    _fields_ = [
        ("next", ct.c_void_p),
        ("priv", ct.c_void_p),
        ("get_page", GET),
        ("caps", CAPS),
        *[(f"unused{i}", ct.c_void_p) for i in range(5)],
    ]


def load():
    """The library, or None when drgn's wheel is not here or has another."""
    spec = importlib.util.find_spec("drgn")
    if spec is None:
        return None
    found = sorted((Path(spec.origin).parents[1] / "drgn.libs").glob("libaddrxlat-*.so*"))
    if not found:
        return None
    lib = ct.CDLL(str(found[0]))
    lib.addrxlat_ctx_new.restype = ct.c_void_p
    lib.addrxlat_ctx_add_cb.restype = ct.POINTER(Callbacks)
    lib.addrxlat_ctx_add_cb.argtypes = [ct.c_void_p]
    lib.addrxlat_pte_format.argtypes = [ct.c_char_p]
    lib.addrxlat_walk.argtypes = [ct.POINTER(Step)]
    lib.addrxlat_ctx_get_err.restype = ct.c_char_p
    lib.addrxlat_ctx_get_err.argtypes = lib.addrxlat_ctx_clear_err.argtypes = [ct.c_void_p]
    return lib


def pte_format(fmt):
    """Name that the library has for a format of ours."""
    if fmt.name.startswith("x86_64"):
        return "x86_64"
    if fmt.name.startswith("x86"):
        return "ia32_pae" if fmt.entry_bytes == 8 else "ia32"
    if fmt.name.startswith("riscv"):
        return "riscv64"
    if fmt.pa_bits == 48:
        return "aarch64"
    return "aarch64_lpa" if fmt.page_shift == 16 else "aarch64_lpa2"


class Walker:
    """Translates through the tables at `root`."""

    def __init__(self, lib, table, root):
        ram, fmt = table.ram, table.format
        memory = int(ram.view(0, 0).ctypes.data)
        self.lib, self.ctx, self.error = lib, lib.addrxlat_ctx_new(), None

        def get_page(_, buf):
            buf = buf.contents
            page = buf.addr.addr & ~0xFFF
            if not 0 <= page < ram.size:
                return 5  # no data: outside of memory
            buf.ptr, buf.size, buf.addr.addr = memory + page, 4096, page
            buf.order, buf.put = 1, ct.cast(self._put, ct.c_void_p).value  # 1: little endian
            return 0

        self._put, self._get = PUT(lambda _: None), GET(get_page)
        self._caps = CAPS(lambda _: 1 << MACHPHYS | 1)
        callbacks = lib.addrxlat_ctx_add_cb(self.ctx).contents
        callbacks.get_page, callbacks.caps = self._get, self._caps
        self.meth = Meth(kind=3, target=MACHPHYS)  # kind 3: page tables
        pgt = self.meth.pgt
        pgt.root = Full(root, MACHPHYS)
        pgt.form.pte = lib.addrxlat_pte_format(pte_format(fmt).encode())
        fields = [fmt.page_shift, *[level.bits for level in reversed(fmt.levels)]]
        pgt.form.nr = len(fields)
        for n, bits in enumerate(fields):
            pgt.form.bits[n] = bits
        self.step = Step(ctx=self.ctx, meth=ct.addressof(self.meth))

    def translate(self, va):
        """Physical address, or None; then `error` holds (code, text)."""
        self.step.base = Full(va, VIRT)
        code = self.lib.addrxlat_walk(ct.byref(self.step))
        if code:
            self.error = code, self.lib.addrxlat_ctx_get_err(self.ctx).decode()
            self.lib.addrxlat_ctx_clear_err(self.ctx)
            return None
        return self.step.base.addr
