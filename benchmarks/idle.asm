; A guest that idles: it halts, and at each tick of a clock, a thousand a second, sends the next letter to the
; first serial line. So it can be seen from outside, to a millisecond, when it stands and when it goes on.
;
;     nasm -f bin -o idle.bin idle.asm
PERIOD  equ 1193182 / 1000
COM1    equ 0x3f8

        bits 16
        org 0x7c00

        cli
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7c00
        mov word [8 * 4], tick
        mov word [8 * 4 + 2], ax
        mov al, 0x34            ; channel 0 rings over and over
        out 0x43, al
        mov al, PERIOD & 0xff
        out 0x40, al
        mov al, PERIOD >> 8
        out 0x40, al
        mov al, 0xfe            ; nobody else does
        out 0x21, al
        mov bl, 'A'
rest:   sti
        hlt
        jmp rest

tick:   mov dx, COM1
        mov al, bl
        out dx, al
        inc bl
        cmp bl, 'Z' + 1
        jne done
        mov bl, 'A'
done:   mov al, 0x20
        out 0x20, al
        iret

        times 510 - ($ - $$) db 0
        dw 0xaa55
