"""Which pages hold code: what lets the guest store at full speed.

At each store into a page that may be executed, unicorn looks whether decoded code must be forgotten: several
functions deep, at many times the cost of the store. Without paging every page may be executed, the stack too.
So unicorn asks here, page by page, what its fast table of pages (the TLB) shall say:

    load, store   a page of data:  read, write            unicorn looks at the first store only
    fetch         a page of code from then on: all three    it looks at every store, as ever

A page becomes code once, and the table is emptied then, lest another privilege level's half of it still say
data. With paging the guest's tables count: the answer is a refusal, and unicorn's own translation takes over
until paging ends. Unicorn asks thirty thousand times before GRUB's prompt; machine code answers on x86-64.

- `CodePages(uc, native)`: `settle()` after CR0 may have changed, `refused()` after unicorn failed.
- `written(address, size)`: memory was written past unicorn.
"""

from __future__ import annotations

import ctypes
import importlib
import mmap
from typing import Any

from hypervisor.accel import PAGE_SIZE
from hypervisor.accel.unicorn_native import MachineCode, add_native_hook, address_of, runs_machine_code

_ADDRESSES = 1 << 32
_MASK = _ADDRESSES - 1
_PAGE_BITS = 12
_MUCH = 1 << 22
"""Bytes of which to look for code takes longer than to decode all anew."""
_PROT_DATA, _PROT_CODE = 3, 7
_CONTROL_TYPE_BITS = 30


class _Entry(ctypes.Structure):
    """`uc_tlb_entry`."""

    _fields_ = (("paddr", ctypes.c_uint64), ("perms", ctypes.c_uint32))


_Hook = ctypes.CFUNCTYPE(
    ctypes.c_bool, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.POINTER(_Entry), ctypes.c_void_p
)


class CodePages:
    """What unicorn is told of each page, and which of them hold code."""

    def __init__(self, uc: Any, native: Any) -> None:
        unicorn: Any = importlib.import_module("unicorn")
        self._uc, self._cr0 = uc, importlib.import_module("unicorn.x86_const").UC_X86_REG_CR0
        self._by_guest, self._by_us = unicorn.UC_TLB_CPU, unicorn.UC_TLB_VIRTUAL
        self._fetch = unicorn.UC_MEM_FETCH
        self._map = mmap.mmap(-1, _ADDRESSES // PAGE_SIZE // 8)
        flush = unicorn.UC_CTL_IO_WRITE << _CONTROL_TYPE_BITS | unicorn.UC_CTL_TLB_FLUSH
        if runs_machine_code():
            self._code = MachineCode(_answer(self._cr0, native, self._fetch, flush))
            hook = self._code.at
        else:
            self._hook = _Hook(self._on_fill)
            hook = address_of(self._hook)
        self._native, self._flush_tlb = native, flush
        data = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        add_native_hook(native, uc, unicorn.UC_HOOK_TLB_FILL, hook, data)
        self.paging = False
        self._choose()

    def __contains__(self, page: int) -> bool:
        return bool(self._map[page >> 3] >> (page & 7) & 1)

    def _on_fill(self, uc: int, address: int, kind: int, entry: Any, data: int) -> bool:
        """Answer as `_answer` does."""
        address &= _MASK
        page = address >> _PAGE_BITS
        if self._guest_pages():
            return False
        if kind == self._fetch and page not in self:
            self._map[page >> 3] |= 1 << (page & 7)
            self._flush()
        entry.contents.paddr = address
        entry.contents.perms = _PROT_CODE if page in self else _PROT_DATA
        return True

    def _guest_pages(self) -> bool:
        return bool(self._uc.reg_read(self._cr0) >> 31 & 1)

    def _choose(self) -> None:
        self._uc.ctl_set_tlb_mode(self._by_guest if self.paging else self._by_us)
        self._flush()

    def _flush(self) -> None:
        self._native.uc_ctl(self._uc._uch, self._flush_tlb)

    def settle(self) -> None:
        """Look at CR0, and have whoever is in charge translate addresses."""
        if self._guest_pages() == self.paging:
            return
        self.paging = not self.paging
        if not self.paging:
            # What was decoded meanwhile is on pages that are not known to hold code.
            self._uc.ctl_flush_tb()
        self._choose()

    def refused(self) -> bool:
        """Whether unicorn failed because the guest has begun to use paging; then it can go on."""
        before = self.paging
        self.settle()
        return self.paging and not before

    def written(self, address: int, size: int) -> None:
        """Have unicorn forget what it decoded of memory that was written past it."""
        if size >= _MUCH:
            self._uc.ctl_flush_tb()
            return
        if self.paging:
            self._uc.ctl_remove_cache(address, address + size)
            return
        end = min(address + size, _ADDRESSES)
        for page in range(address >> _PAGE_BITS, -(-end >> _PAGE_BITS)):
            if page in self:
                first = page << _PAGE_BITS
                self._uc.ctl_remove_cache(max(address, first), min(end, first + PAGE_SIZE))


def _answer(cr0: int, native: Any, fetch: int, flush: int) -> bytes:
    """Machine code that fills an entry; its user data is the map, with a bit for each page of code.

            push rbx; push rbp; push r12; sub rsp, 16
            mov rbx, rcx; mov rbp, r8; mov r12, rdi            the entry, the map, the engine
            mov eax, esi; mov [rbx], rax; mov [rbx+8], edx     the address is the place; the kind of access
            mov rdx, rsp; mov esi, CR0; mov rax, uc_reg_read; call rax
            xor eax, eax; cmp dword [rsp], 0; jl out           paging: refuse
            mov ecx, [rbx]; shr ecx, 12
            cmp dword [rbx+8], FETCH; je fetch
            mov dword [rbx+8], 3; bt [rbp], ecx; jnc done; jmp code
    fetch:  bts [rbp], ecx; jc code
            mov rdi, r12; mov esi, FLUSH; mov rdx, uc_ctl; call rdx
    code:   mov dword [rbx+8], 7
    done:   mov eax, 1
    out:    add rsp, 16; pop r12; pop rbp; pop rbx; ret
    """
    return b"".join(
        (
            bytes.fromhex("535541544883ec104889cb4c89c54989fc89f04889038953084889e2be"),
            cr0.to_bytes(4, "little"),
            bytes.fromhex("48b8"),
            address_of(native.uc_reg_read).to_bytes(8, "little"),
            bytes.fromhex("ffd031c0833c24007c408b0bc1e90c837b08"),
            fetch.to_bytes(1, "little"),
            bytes.fromhex("740fc74308030000000fa34d007323eb1a0fab4d0072144c89e7be"),
            flush.to_bytes(4, "little"),
            bytes.fromhex("48ba"),
            address_of(native.uc_ctl).to_bytes(8, "little"),
            bytes.fromhex("ffd2c7430807000000b8010000004883c410415c5d5bc3"),
        )
    )
