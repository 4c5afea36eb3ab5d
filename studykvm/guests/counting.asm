; A guest that counts: it writes the letters A to Z, over and over, to the first serial line. A gap or a repetition
; shows what became of it when it is stopped, saved, or moved to another machine.
;
;     nasm -f bin -o counting.bin counting.asm
        bits 16
        org 0x7c00

        cli
        mov dx, 0x3f8
        mov al, 'A'
next:   out dx, al
        inc al
        cmp al, 'Z' + 1
        jne wait_
        mov al, 'A'
wait_:  mov ecx, 300000
.turn:  dec ecx
        jnz .turn
        jmp next

        times 510 - ($ - $$) db 0
        dw 0xaa55
