"""The IDE disks and CD-ROMs: hw/ide/*.c."""
