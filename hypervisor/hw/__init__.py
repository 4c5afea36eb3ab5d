"""The devices: hw/*.c of QEMU, as far as the model needs them."""
