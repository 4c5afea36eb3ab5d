; The guest of the boot medium: what a CD boots when the disk holds nothing yet. It says so and switches off.
;
;     nasm -f bin -o medium.bin medium.asm
        bits 16
        org 0x7c00
%include "common.inc"

        jmp 0:start             ; a CD is booted at 07C0:0000
start:  set_up
        mov si, hello
        call print
        mov si, shutdown        ; the port by which a PC of qemu-kvm 0.12 is switched off
        mov dx, 0x8900
        mov cx, 8
        rep outsb
hang:   hlt
        jmp hang

        print_routine

hello:  db "Here a system would be installed on the disk. Switching off.", 13, 10, 0
shutdown:
        db "Shutdown"

        times 510 - ($ - $$) db 0
        dw 0xaa55
