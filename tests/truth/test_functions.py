"""Every function that the model traces is one of qemu-kvm 0.12.4, by the index of its source."""

from graphs.index.query import Index
from studykvm.commands.functions import modelled
from tracer import traced

C_FILE = "vl.c"


@traced
def no_function_of_qemu() -> None: ...


def test_the_real_source_has_every_modelled_function():
    with Index.open() as index:
        real = {(function.file, function.name) for function in index.all_functions.values()}
    ours = {(place.file, place.name) for place in modelled()}
    assert ours <= real
    assert ("vl.c", "main") in ours
