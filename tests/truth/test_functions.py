"""Every function that the model traces is one of qemu-kvm 0.12.4, by the index of its source."""

import subprocess
import sys

from graphs.index.query import Index
from studykvm.commands.functions import modelled
from tracer import traced

C_FILE = "vl.c"


@traced
def no_function_of_qemu() -> None: ...


def test_the_real_source_has_every_modelled_function():
    # A process of its own: other tests of this one register constructors that QEMU lacks.
    command = [sys.executable, "-m", "studykvm", "functions", "--tsv"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ours = {tuple(line.split("\t")[:2]) for line in listed.splitlines()}
    with Index.open() as index:
        real = {(function.file, function.name) for function in index.all_functions.values()}
    assert ours <= real
    assert ("vl.c", "main") in ours


def test_what_others_trace_is_not_of_the_model():
    assert "no_function_of_qemu" not in {place.name for place in modelled()}
