"""Machine code in words: what qemu-kvm 0.12.4 printed for its own BIOS, read as 16 and as 32 bits wide."""

import re
import sys

import pytest

from hypervisor import disas
from hypervisor.errors import HypervisorError
from tests.hypervisor import guest_code as asm

pytest.importorskip("capstone", reason="pip install capstone")

RECORDED_16 = """
0xf0000 00b94042 add    %bh,0x4240(%bx,%di)
0xf0006 31d2 xor    %dx,%dx
0xf0008 f7f1 div    %cx
0xf0011 54 push   %sp
0xf0012 2408 and    $0x8,%al
0xf0014 eb02 jmp    0xf0018
0xf0016 f390 pause
0xf0018 0f31 rdtsc
0xf001a 2b4424 sub    0x24(%si),%ax
0xf0022 83fa00 cmp    $0x0,%dx
0xf0025 7cef jl     0xf0016
0xf0027 7f05 jg     0xf002e
0xf002c 76e8 jbe    0xf0016
0xf002e 8b4424 mov    0x24(%si),%ax
0xf0031 18e8 sbb    %ch,%al
0xf0036 ff85c00f incw   0xfc0(%di)
0xf0044 ec in     (%dx),%al
0xf0048 108d7302 adc    %cl,0x273(%di)
0xf0050 ee out    %al,(%dx)
0xf0051 8d4b03 lea    0x3(%bp,%di),%cx
0xf0104 745a je     0xf0160
0xf0119 0f0001 sldt   (%bx,%di)
0xf011c 44 inc    %sp
0xf0135 4b dec    %bx
0xf0156 0f00e8 verw   %ax
0xf0159 08d8 or     %bl,%al
0xf015c ff59eb lcall  *-0x15(%bx,%di)
0xf020e ff0f decw   (%bx)
0xf021a 0f94c0 sete   %al
0xf0220 84c0 test   %al,%al
0xf023a d402 aam    $0x2
0xf0312 f4 hlt
0xf032c c0e802 shr    $0x2,%al
0xf0339 0fb6c0 movzbw %al,%ax
"""
RECORDED_32 = """
0xf0000 00b940420f00 add    %bh,0xf4240(%ecx)
0xf0006 31d2 xor    %edx,%edx
0xf0008 f7f1 div    %ecx
0xf0010 11542408 adc    %edx,0x8(%esp)
0xf0014 eb02 jmp    0xf0018
0xf0016 f390 pause
0xf0018 0f31 rdtsc
0xf001a 2b442404 sub    0x4(%esp),%eax
0xf001e 1b542408 sbb    0x8(%esp),%edx
0xf0022 83fa00 cmp    $0x0,%edx
0xf0025 7cef jl     0xf0016
0xf0027 7f05 jg     0xf002e
0xf002c 76e8 jbe    0xf0016
0xf002e 8b442418 mov    0x18(%esp),%eax
0xf0032 e8d4e3ffff call   0xee40b
0xf0037 85c0 test   %eax,%eax
0xf0039 0f88f6040000 js     0xf0535
0xf0043 ee out    %al,(%dx)
0xf0044 ec in     (%dx),%al
0xf0049 8d7302 lea    0x2(%ebx),%esi
0xf0065 0f85ca040000 jne    0xf0535
0xf0115 f725608d0f00 mull   0xf8d60
0xf013b 7429 je     0xf0166
0xf0153 681c4c0f00 push   $0xf4c1c
0xf015d 59 pop    %ecx
0xf0166 80bc242802000002 cmpb   $0x2,0x228(%esp)
0xf0200 08c7 or     %al,%bh
0xf0202 46 inc    %esi
0xf020a 48 dec    %eax
0xf020e ff0f decl   (%edi)
0xf0212 2429 and    $0x29,%al
0xf021a 0f94c0 sete   %al
0xf032c c0e802 shr    $0x2,%al
0xf0339 0fb6c0 movzbl %al,%eax
"""


@pytest.mark.parametrize(
    ("recorded", "flags"), [(RECORDED_16, disas.BITS_16), (RECORDED_32, disas.BITS_32)], ids=["16", "32"]
)
def test_instructions_read_as_recorded(recorded, flags):
    for line in recorded.strip().splitlines():
        at, code, words = line.split(" ", 2)
        address = int(at, 16)
        read = [
            (where, text.rstrip()) for where, text in disas.instructions(bytes.fromhex(code), address, flags)
        ]
        assert read == [(address, words)]


def test_64_bits():
    """From mov rax, [rbx + 8 * rcx - 8]; and rsp, -16; ret: the AT&T spelling of the SDM's encodings."""
    code = bytes.fromhex("488b44cbf84883e4f0c3")
    words = [text.rstrip() for _, text in disas.instructions(code, 0, disas.BITS_64)]
    assert words == ["mov    -0x8(%rbx,%rcx,8),%rax", "and    $0xfffffffffffffff0,%rsp", "retq"]


def test_what_is_no_instruction_takes_a_byte():
    assert next(disas.instructions(b"\xf0\x90\x90", 0, disas.BITS_32)) == (0, "(bad)  ")


def test_the_monitor_reads_as_the_processor_would(machine, tmp_path):
    asm.write_disk(tmp_path / "guest.img", b"\xb8\x41\x02\xeb\xfe")
    running = machine("-hda", str(tmp_path / "guest.img"), "-monitor", "stdio")
    running.wait_for("(qemu) ")
    running.type("xp/2i 0x7c00\nxp/1iw 0x7c00\nx/1i 0xf000fff0\nxp/99999i 0\nquit\n")
    assert running.end()[0] == 0
    said = running.plain()
    if "0x0000000000007c00:  mov    $0x241,%ax\n0x0000000000007c03:  jmp    0x7c03" not in said:
        # The guest was not there yet.
        assert re.search(r"0x0000000000007c00:  add    %al,\(%bx,%si\)", said)
    assert "the model reads at most 4369 instructions at a time" in said


def test_without_capstone_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "capstone", None)
    with pytest.raises(HypervisorError, match="pip install capstone"):
        list(disas.instructions(b"\x90", 0, disas.BITS_32))
