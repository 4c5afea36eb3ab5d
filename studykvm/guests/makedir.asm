; A guest that writes to its disk as an operating system does: it makes the directory IN_GUEST with the file
; in_BASE_HOST.txt in it, on a disk with a FAT16 file system. Where the directory is there already, it shows the file.
;
;     nasm -f bin -o makedir.bin makedir.asm
;
; It lies in the reserved sectors 0 to 4 of the file system; whoever makes the disk fills in bytes 11 to 61, the
; BIOS parameter block. All is read and written by block number (int 13h, functions 42h and 43h).
        bits 16
        org 0x7c00
%include "common.inc"

FAT     equ 0x9000              ; the first sector of the file allocation table
ROOT    equ 0x9200              ; the first sector of the root directory
TEXT    equ 0x9400              ; a cluster's first sector
zeros   equ 0x9600
FREE    equ 0
LAST    equ 0xffff              ; ends a chain of clusters
DAY     equ (2010 - 1980) << 9 | 3 << 5 | 1

        jmp short start
        nop
        times 62 - ($ - $$) db 0

per_cluster equ 0x7c0d          ; what the BIOS parameter block says, and where
reserved    equ 0x7c0e
fats        equ 0x7c10
root_size   equ 0x7c11
fat_size    equ 0x7c16

start:  set_up
        mov [drive], dl
        mov eax, 1              ; the rest of this program
        mov cx, 4
        mov bx, 0x7e00
        mov dh, 0x42
        call disk
        jmp work

; Read (DH = 42h) or write (43h) CX sectors from number EAX on, at BX; ends the program on an error.
disk:   pushad
        mov [packet + 2], cx
        mov [packet + 4], bx
        mov [packet + 8], eax
        mov si, packet
        mov ah, dh
        mov al, 0
        mov dl, [drive]
        int 0x13
        popad
        jc .bad
        ret
.bad:   mov si, failed

quit:   call print
hang:   hlt
        jmp hang

        print_routine

packet: db 16, 0
        dw 0                    ; sectors
        dw 0, 0                 ; where
        dq 0                    ; first sector
drive:  db 0
failed: db "A disk request failed.", 13, 10, 0

        times 510 - ($ - $$) db 0
        dw 0xaa55

work:   mov di, zeros
        mov cx, 256
        xor ax, ax
        rep stosw
        movzx eax, word [reserved]
        mov cx, 1
        mov bx, FAT
        mov dh, 0x42
        call disk
        movzx eax, byte [fats]  ; the root directory follows the tables
        movzx edx, word [fat_size]
        imul eax, edx
        movzx edx, word [reserved]
        add eax, edx
        mov [root], eax
        mov cx, 1
        mov bx, ROOT
        mov dh, 0x42
        call disk
        movzx edx, word [root_size]
        shr edx, 4              ; 16 entries a sector
        add eax, edx
        mov [data], eax

        mov bx, ROOT            ; is the directory there, or else a free place for it?
look:   cmp byte [bx], 0
        je make
        mov si, entry
        mov di, bx
        mov cx, 11
        repe cmpsb
        je there
        add bx, 32
        cmp bx, ROOT + 512
        jb look
        mov si, full
        jmp quit

make:   mov [place], bx
        mov bx, FAT + 4         ; cluster numbers begin at 2
        call take
        mov [directory], ax
        call take
        mov [file], ax

        mov ax, [directory]     ; the numbers go into the entries
        mov [entry + 26], ax
        mov [dot + 26], ax
        mov ax, [file]
        mov [short_name + 26], ax

        mov ax, [file]          ; first what nobody sees yet: the file and the directory
        mov bx, content
        call cluster
        mov ax, [directory]
        mov bx, dot
        call cluster
        movzx eax, word [reserved]
        movzx bp, byte [fats]
table:  mov cx, 1
        mov bx, FAT
        mov dh, 0x43
        call disk
        movzx edx, word [fat_size]
        add eax, edx
        dec bp
        jnz table
        mov si, entry           ; last the entry that leads to them
        mov di, [place]
        mov cx, 32
        rep movsb
        mov eax, [root]
        mov cx, 1
        mov bx, ROOT
        mov dh, 0x43
        call disk
        mov si, made
        jmp quit

; The directory is there: show the file's first sector.
there:  mov si, already
        push bx
        call print
        pop bx
        mov ax, [bx + 26]
        mov dh, 0x42
        mov bx, TEXT
        call sector
        mov ax, [TEXT + (short_name - dot) + 26]
        mov dh, 0x42
        mov bx, TEXT
        call sector
        mov byte [TEXT + 511], 0
        mov si, TEXT
        jmp quit

; Take a free cluster, looking from BX on; its number in AX.
take:   cmp bx, FAT + 512
        mov si, full
        je quit
        cmp word [bx], FREE
        lea bx, [bx + 2]
        jne take
        mov word [bx - 2], LAST
        lea ax, [bx - 2 - FAT]
        shr ax, 1
        ret

; Write the sector at BX as the first of cluster AX, and zeros as the others.
cluster:
        mov dh, 0x43
        call sector
        movzx bp, byte [per_cluster]
.next:  dec bp
        jz .end
        inc eax
        mov bx, zeros
        mov dh, 0x43
        call disk
        jmp .next
.end:   ret

; Read or write the first sector of cluster AX; its number in EAX.
sector: movzx eax, ax
        sub eax, 2
        movzx ecx, byte [per_cluster]
        imul eax, ecx
        add eax, [data]
        mov cx, 1
        jmp disk

root:   dd 0                    ; sector numbers
data:   dd 0
place:  dw 0                    ; of the entry within ROOT
directory:
        dw 0                    ; cluster numbers
file:   dw 0
full:   db "There is no room for a directory.", 13, 10, 0
made:   db "Made the directory IN_GUEST with in_BASE_HOST.txt in it.", 13, 10, 0
already:
        db "IN_GUEST is there. Its file says: ", 0

; A directory entry: name, attributes, three bytes, day of making and of use, zero, time, day, cluster, size
%macro entry_of 4
        db %1, %2, 0, 0
        dw 0, DAY, DAY, 0, 0, DAY, %3
        dd %4
%endmacro

entry:  entry_of "IN_GUEST   ", 0x10, 0, 0

        times 1536 - ($ - $$) db 0

dot:    entry_of ".          ", 0x10, 0, 0
        entry_of "..         ", 0x10, 0, 0
CHECKSUM    equ 0x4f                ; the checksum of the short name
        db 0x42                 ; the long name's second and last piece
        dw __utf16__("txt"), 0, 0xffff
        db 0x0f, 0, CHECKSUM
        times 6 dw 0xffff
        dw 0, 0xffff, 0xffff
        db 0x01                 ; and its first
        dw __utf16__("in_BA")
        db 0x0f, 0, CHECKSUM
        dw __utf16__("SE_HOS"), 0
        dw __utf16__("T.")
short_name:
        entry_of "IN_BAS~1TXT", 0x20, 0, content.end - content

        times 2048 - ($ - $$) db 0

content:
        db "Written by the guest. Whoever reads this on the base has seen a commit.", 13, 10
.end:
        times 2560 - ($ - $$) db 0
