# SPDX-License-Identifier: GPL-2.0-or-later
"""drgn, a debugger for kernels, over our own bytes: it walks the kernel half of x86-64 and arm64.

Memory behind the tables answers with its own address, so that reading tells where a walk ended.
"""

import drgn

X86_KERNEL, ARM_KERNEL = 0xFFFFFFFF80000000, 0xFFFF800080000000


def knows(fmt):
    """Whether drgn has a walker for the format."""
    return fmt.name.startswith(("x86_64", "arm64"))


def vmcoreinfo(fmt, root):
    """What drgn has to know to find the tables."""
    common = f"OSRELEASE=6.12.0-physmem\nPAGESIZE={fmt.page_size}\nKERNELOFFSET=0\n"
    if fmt.name.startswith("x86"):
        return common + (
            f"SYMBOL(swapper_pg_dir)={X86_KERNEL + root:x}\nNUMBER(phys_base)=0\n"
            f"NUMBER(pgtable_l5_enabled)={int(fmt.va_bits == 57)}\n"
        )
    return common + (
        f"SYMBOL(swapper_pg_dir)={ARM_KERNEL + root:x}\n"
        f"NUMBER(kimage_voffset)=0x{ARM_KERNEL:x}\nNUMBER(VA_BITS)={fmt.va_bits}\n"
        f"NUMBER(TCR_EL1_T1SZ)=0x{64 - fmt.va_bits:x}\n"
    )


class Walker:
    """Translates through the table of the upper half. Leaves must lead behind `tables_end`."""

    def __init__(self, table, tables_end):
        fmt, ram = table.format, table.ram
        arch = drgn.Architecture.X86_64 if fmt.name.startswith("x86") else drgn.Architecture.AARCH64
        self.prog = drgn.Program(drgn.Platform(arch))

        def read(address, count, _offset, _physical):
            if address < tables_end:
                return ram.read(address, count)
            if count == 8:
                return address.to_bytes(8, "little")
            return b"".join((address + n & ~7).to_bytes(8, "little") for n in range(0, count, 8))

        self.prog.add_memory_segment(0, 1 << fmt.pa_bits, read, physical=True)
        self.prog.set_linux_kernel_custom(vmcoreinfo(fmt, table.root_high), True)

    def translate(self, va):
        """Physical address of a multiple of 8, or None."""
        try:
            return self.prog.read_u64(va)
        except drgn.FaultError:
            return None
