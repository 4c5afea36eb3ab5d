; A guest for moving machines about: it counts, in memory and on the serial line, and writes pages as it goes.
;   nasm -f bin -o count.bin count.asm
; The disk's sector 1 says how: a word, pages written for each number, up to 448; a double word, turns of an
; empty loop after each number. At the start it writes that sector to sector 5, so that the disk has something
; that only this guest can have put there.

COUNT   equ 0x0600              ; where the number is
CONFIG  equ 0x0800              ; where sector 1 goes
COM1    equ 0x3f8
FIRST   equ 0x2000              ; segment of the first page written

        bits 16
        org 0x7c00
%include "common.inc"

        set_up
        mov ax, 0x0201          ; read one sector,
        mov bx, CONFIG          ; to here,
        mov cx, 0x0002          ; cylinder 0, sector 2,
        mov dx, 0x0080          ; head 0 of the first disk
        int 0x13
        mov ax, 0x0301          ; write it
        mov cx, 0x0006          ; to block 5
        int 0x13
        mov dword [COUNT], 0

next:   inc dword [COUNT]
        mov eax, [COUNT]
        call print
        mov cx, [CONFIG]
        jcxz pause
        mov dx, FIRST
page:   mov es, dx
        mov [es:0], eax         ; the number as it is now: a page differs each time
        add dx, 0x100
        loop page
pause:  mov ecx, [CONFIG + 2]
        jecxz next
turn:   dec ecx
        jnz turn
        jmp next

; Print EAX in decimal digits and a line end; keeps EAX.
print:  push eax
        mov ebx, 10
        xor cx, cx
digit:  xor edx, edx
        div ebx
        push dx
        inc cx
        test eax, eax
        jnz digit
send:   pop ax
        add al, '0'
        call out1
        loop send
        mov al, 10
        call out1
        pop eax
        ret

; Send AL when the line takes it.
out1:   push ax
        mov dx, COM1 + 5
busy:   in al, dx
        test al, 0x20
        jz busy
        pop ax
        mov dx, COM1
        out dx, al
        ret

        times 510 - ($ - $$) db 0
        dw 0xaa55
