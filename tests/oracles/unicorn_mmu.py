# SPDX-License-Identifier: GPL-2.0-or-later
"""Unicorn as an MMU: the guest's memory is our own, its TLB walks our tables.

Unicorn's Python binding lacks uc_vmem_translate, the library has it. What Unicorn cannot check:
physical addresses of x86 from 2**40 on, 52-bit addresses of arm64, Svnapot.
"""

import ctypes

import unicorn.unicorn_py3.unicorn as binding
from unicorn import (
    UC_ARCH_ARM64,
    UC_ARCH_RISCV,
    UC_ARCH_X86,
    UC_MODE_32,
    UC_MODE_64,
    UC_MODE_ARM,
    UC_MODE_RISCV64,
    UC_PROT_ALL,
    Uc,
)
from unicorn import arm64_const as arm
from unicorn import riscv_const as riscv
from unicorn import x86_const as x86

READ, WRITE, EXEC = 1, 2, 4
_translate = binding.uclib.uc_vmem_translate
_translate.restype = ctypes.c_int
_translate.argtypes = [
    ctypes.c_void_p,
    ctypes.c_uint64,
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_uint64),
]
EFER, NXE, LME, LMA = 0xC0000080, 1 << 11, 1 << 8, 1 << 10


def attach(table):
    """Unicorn that follows a page table of ours, or None for formats that it does not know."""
    fmt = table.format
    if fmt.name.startswith("x86"):
        uc = _x86(table)
    elif fmt.name.startswith("arm64") and fmt.pa_bits == 48 and fmt.va_bits != 36:
        uc = _arm64(table)
    elif fmt.name.startswith("riscv"):
        uc = _riscv(table)
    else:
        return None
    flush(uc)
    return uc


def flush(uc):
    """Drop the guest's TLB: needed after every change of a page table."""
    uc.ctl(binding.uc.UC_CTL_TLB_FLUSH, binding.uc.UC_CTL_IO_WRITE)


def translate(uc, va, access=READ):
    """Physical address, or None when this kind of access would fault. Sets A and D bits."""
    paddr = ctypes.c_uint64()
    failed = _translate(uc._uch, va, access, ctypes.byref(paddr))
    return None if failed else paddr.value


def _memory(uc, ram, base=0):
    uc.ctl_set_tlb_mode(0)  # UC_TLB_CPU: walk the page tables
    uc.mem_map_ptr(base, ram.size - base, UC_PROT_ALL, int(ram.view(0, 0).ctypes.data) + base)


def _x86(table):
    long = table.format.va_bits > 32
    uc = Uc(UC_ARCH_X86, UC_MODE_64 if long else UC_MODE_32)
    uc.ctl_set_cpu_model(x86.UC_CPU_X86_ICELAKE_SERVER if long else x86.UC_CPU_X86_HASWELL)
    _memory(uc, table.ram)
    cr4 = 1 << 4 | 1 << 9  # PSE, OSFXSR
    cr4 |= 1 << 5 if table.format.entry_bytes == 8 else 0  # PAE
    cr4 |= 1 << 12 if table.format.va_bits == 57 else 0  # LA57
    uc.reg_write(x86.UC_X86_REG_MSR, (EFER, NXE | (LME | LMA if long else 0)))
    uc.reg_write(x86.UC_X86_REG_CR3, table.root)
    uc.reg_write(x86.UC_X86_REG_CR4, cr4)
    uc.reg_write(x86.UC_X86_REG_CR0, 1 << 31 | 1 << 16 | 1)  # PG, WP, PE
    return uc


def _user_mode_x86_64(uc, table):
    """Execute `sysretq`, which needs a page of code; `table` gets it at an unlikely address."""
    pc, frame = 0x5A5A5A5A5000, 0x3FFFF000
    table.ram.write(frame, b"\x48\x0f\x07")
    table.map(pc, frame, 4096, "PAGE_READONLY_EXEC")
    flush(uc)
    uc.reg_write(x86.UC_X86_REG_MSR, (0xC0000081, 0x10 << 48 | 0x8 << 32))  # STAR
    uc.reg_write(x86.UC_X86_REG_MSR, (EFER, 0xD01))  # as before, and SCE
    uc.reg_write(x86.UC_X86_REG_RCX, pc + 3)
    uc.reg_write(x86.UC_X86_REG_R11, 2)
    uc.emu_start(pc, pc + 3, count=1)
    table.unmap(pc, 4096)


def _arm64(table):
    fmt = table.format
    uc = Uc(UC_ARCH_ARM64, UC_MODE_ARM)
    uc.ctl_set_cpu_model(arm.UC_CPU_ARM64_MAX)
    _memory(uc, table.ram)

    def sysreg(op0, op1, crn, crm, op2, value):
        uc.reg_write(arm.UC_ARM64_REG_CP_REG, (crn, crm, op0, op1, op2, value))

    sysreg(3, 6, 1, 1, 0, 1 << 10 | 1)  # SCR_EL3.RW, NS: else EL1 would be AArch32
    sysreg(3, 4, 1, 1, 0, 1 << 31)  # HCR_EL2.RW
    sysreg(3, 0, 10, 2, 0, 0xFF)  # MAIR_EL1: attribute 0 is normal memory
    size = 64 - fmt.va_bits
    tg0, tg1 = {12: (0, 2), 14: (2, 1), 16: (1, 3)}[fmt.page_shift]
    tcr = size | size << 16 | tg0 << 14 | tg1 << 30 | 5 << 32 | 1 << 8 | 1 << 10 | 3 << 12
    sysreg(3, 0, 2, 0, 2, tcr)  # TCR_EL1: IPS is 48 bits
    sysreg(3, 0, 2, 0, 0, table.root)
    sysreg(3, 0, 2, 0, 1, table.root_high)
    sctlr = uc.reg_read(arm.UC_ARM64_REG_CP_REG, (1, 0, 3, 0, 0))
    sysreg(3, 0, 1, 0, 0, sctlr | 1 | 1 << 2 | 1 << 12)  # SCTLR_EL1: M, C, I
    return uc


def _riscv(table):
    uc = Uc(UC_ARCH_RISCV, UC_MODE_RISCV64)
    _memory(uc, table.ram)
    mode = {39: 8, 48: 9, 57: 10}[table.format.va_bits]
    uc.reg_write(riscv.UC_RISCV_REG_SATP, mode << 60 | table.root >> 12)
    uc.reg_write(riscv.UC_RISCV_REG_PRIV, 1)
    return uc


def user_mode(uc, table):
    """Leave the kernel's level for that of user programs."""
    name = table.format.name
    if name.startswith("x86_64"):
        _user_mode_x86_64(uc, table)
    elif name.startswith("arm64"):
        uc.reg_write(arm.UC_ARM64_REG_PSTATE, 0)
        sctlr = uc.reg_read(arm.UC_ARM64_REG_CP_REG, (1, 0, 3, 0, 0))
        # to write any system register rebuilds what Unicorn keeps of the processor's state
        uc.reg_write(arm.UC_ARM64_REG_CP_REG, (1, 0, 3, 0, 0, sctlr))
    else:
        uc.reg_write(riscv.UC_RISCV_REG_PRIV, 0)
    flush(uc)
