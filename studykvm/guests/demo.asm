; The demo guest: a boot sector that reads and writes its disk through the BIOS, then switches the machine off.
;
;     nasm -f bin -o demo.bin demo.asm
;
; It reads sectors 0 to 3 by block number, prints the text in sector 1, writes sector 5 by cylinder, head and sector,
; reads that back and compares.
        bits 16
        org 0x7c00
%include "common.inc"

BUFFER  equ 0x8000              ; sectors 0 to 3
WRITTEN equ 0x9000              ; what goes to sector 5
BACK    equ 0x9200              ; what comes back

start:  set_up
        mov [drive], dl
        mov si, hello
        call print

        mov si, packet
        mov ah, 0x42
        int 0x13
        mov si, failed
        jc bad
        cmp word [BUFFER + 510], 0xaa55
        jne bad
        mov si, read_it
        call print
        mov si, BUFFER + 512
        call print

        mov di, WRITTEN         ; sector 5 gets the same words 32 times
        mov cx, 32
fill:   push cx
        mov si, message
        mov cx, 16
        rep movsb
        pop cx
        loop fill
        mov ax, 0x0301
        mov bx, WRITTEN
        call sector5
        mov si, failed
        jc bad
        mov ax, 0x0201
        mov bx, BACK
        call sector5
        mov si, failed
        jc bad
        mov si, WRITTEN
        mov di, BACK
        mov cx, 256
        repe cmpsw
        mov si, differs
        jne bad
        mov si, wrote
bad:    call print

        mov si, shutdown        ; the port by which a PC of qemu-kvm 0.12 is switched off
        mov dx, 0x8900
        mov cx, 8
        rep outsb
hang:   hlt
        jmp hang

sector5:
        mov cx, 0x0006          ; cylinder 0, sector 6
        mov dh, 0               ; head 0
        mov dl, [drive]
        int 0x13
        ret

        print_routine

packet: db 16, 0
        dw 4                    ; sectors
        dw BUFFER, 0
        dq 0                    ; first sector
drive:  db 0
hello:  db "Demo guest: reading sectors 0 to 3", 13, 10, 0
read_it:
        db "Sector 1 says: ", 0
wrote:  db 13, 10, "Sector 5 written and read back. Switching off.", 13, 10, 0
failed: db 13, 10, "A disk request failed.", 13, 10, 0
differs:
        db 13, 10, "Sector 5 came back changed.", 13, 10, 0
message:
        db "studykvm wrote  "
shutdown:
        db "Shutdown"

        times 510 - ($ - $$) db 0
        dw 0xaa55
