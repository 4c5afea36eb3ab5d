"""Creation options of image formats: the first half of qemu-option.c.

The second half, QemuOpts, is in `hypervisor.qemu_option`; both halves parse the same
"name=value,name=value" spelling, where a doubled comma stands for one.

- `get_opt_name`, `get_opt_value`: cut one name or value off such a string.
- `get_next_param_value`, `get_param_value`, `check_params`: look a name up in one.
- `parse_option_bool`, `parse_option_number`, `parse_option_size`: text to value.
- `QEMUOptionParameter`: one option; a driver's `create_options` is a list of them.
- `parse_option_parameters(param, list, dest)`: a filled-in copy of such a list.
- `get_option_parameter`, `set_option_parameter`, `set_option_parameter_int`: find, set.
- `print_option_parameters`, `print_option_help`, `free_option_parameters`.

Out-buffers become return values, so `get_opt_name(buf, buf_size, p, delim)` is
`p, buf = get_opt_name(buf_size, p, delim)` here, and the returned `p` is what is left.
"""

import re
import sys
from enum import IntEnum

from tracer import Struct, traced

C_FILE = "qemu-option.c"


class QEMUOptionParType(IntEnum):
    """`enum QEMUOptionParType`: what an option's value is."""

    OPT_FLAG = 0
    OPT_NUMBER = 1
    OPT_SIZE = 2
    OPT_STRING = 3


OPT_FLAG = QEMUOptionParType.OPT_FLAG
OPT_NUMBER = QEMUOptionParType.OPT_NUMBER
OPT_SIZE = QEMUOptionParType.OPT_SIZE
OPT_STRING = QEMUOptionParType.OPT_STRING


class QEMUOptionParameter(Struct):
    """`QEMUOptionParameter`: one creation option of a format.

    Parameters
    ----------
    name : str
        `const char *name`.
    type : QEMUOptionParType
        `enum QEMUOptionParType type`.
    n : int
        `uint64_t value.n`, of flags, numbers and sizes; -1 stands for UINT64_MAX.
    s : str or None
        `char *value.s`, of strings.
    help : str or None
        `const char *help`.
    """

    name: str = ""
    type: QEMUOptionParType = OPT_FLAG
    n: int = 0
    s: str | None = None
    help: str | None = None


OptionList = list[QEMUOptionParameter]

_INT64_MAX = (1 << 63) - 1
_SIZE_UNITS = {"T": 40, "G": 30, "M": 20, "K": 10, "k": 10, "b": 0, "": 0}
_DOUBLE = re.compile(r"\s*[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|0[xX][0-9a-fA-F]+)")
_HEX = re.compile(r"\s*[+-]?0[xX][0-9a-fA-F]+")
_INTEGER = re.compile(r"\s*([+-]?)(0[xX](?=[0-9a-fA-F])[0-9a-fA-F]+|[0-9]+)")


def strtoll(text: str) -> tuple[int, str]:
    """Read an integer as C's `strtoll(text, &end, 0)` does; the value and what is left.

    >>> strtoll("0x10k"), strtoll("010"), strtoll("09"), strtoll("abc")
    ((16, 'k'), (8, ''), (0, '9'), (0, 'abc'))
    """
    match = _INTEGER.match(text)
    if match is None:
        return 0, text
    digits, end = match[2], match.end()
    if digits[:2] in ("0x", "0X"):
        value = int(digits, 16)
    elif digits[0] == "0":
        octal = re.match("[0-7]+", digits)
        assert octal is not None
        value, end = int(octal[0], 8), match.start(2) + octal.end()
    else:
        value = int(digits)
    if match[1] == "-":
        value = -value
    return max(-_INT64_MAX - 1, min(value, _INT64_MAX)), text[end:]


def _strtod(text: str) -> tuple[float, str]:
    match = _HEX.match(text) or _DOUBLE.match(text)
    if match is None:
        return 0.0, text
    number = match[0].strip()
    return float(int(number, 16) if "x" in number.lower() else float(number)), text[match.end() :]


def _complain(line: str) -> int:
    print(line, file=sys.stderr)
    return -1


@traced
def get_opt_name(buf_size: int, p: str, delim: str) -> tuple[str, str]:
    """Cut the name off `p`, up to `delim`; what is left (from `delim` on), and the name."""
    end = p.find(delim)
    end = len(p) if end < 0 else end
    return p[end:], p[: min(end, buf_size - 1)]


@traced
def get_opt_value(buf_size: int, p: str) -> tuple[str, str]:
    """Cut the value off `p`, up to a single comma; what is left, and the value.

    `buf_size` 0 stands for C's NULL buffer: the value is skipped.

    >>> get_opt_value(128, "a,,b,c=d")
    (',c=d', 'a,b')
    """
    end = 0
    while end < len(p):
        if p[end] == ",":
            if p[end + 1 : end + 2] != ",":
                break
            end += 1
        end += 1
    return p[end:], p[:end].replace(",,", ",")[: max(buf_size - 1, 0)]


@traced
def get_next_param_value(buf_size: int, tag: str, pstr: str) -> tuple[int, str, str]:
    """Find option `tag` in `pstr`; the value's length, the value, and `pstr` after it."""
    p = pstr
    while True:
        p, option = get_opt_name(128, p, "=")
        if not p:
            return 0, "", pstr
        p = p[1:]
        if option == tag:
            p, buf = get_opt_value(buf_size, p)
            return len(buf), buf, p.removeprefix(",")
        p, _ = get_opt_value(0, p)
        if not p:
            return 0, "", pstr
        p = p[1:]


@traced
def get_param_value(buf_size: int, tag: str, str: str) -> tuple[int, str]:
    """Find option `tag` in `str`; the value's length (0 when absent) and the value."""
    ret, buf, _ = get_next_param_value(buf_size, tag, str)
    return ret, buf


@traced
def check_params(buf_size: int, params: list[str], str: str) -> tuple[int, str]:
    """Check that `str` names only `params`; 0, or -1 and the name that is none of them."""
    p, buf = str, ""
    while p:
        p, buf = get_opt_name(buf_size, p, "=")
        if not p or buf not in params:
            return -1, buf
        p, _ = get_opt_value(0, p[1:])
        if not p:
            break
        p = p[1:]
    return 0, buf


@traced
def get_option_parameter(list: OptionList | None, name: str) -> QEMUOptionParameter | None:
    """Find an option of `list` by name."""
    return next((option for option in list or () if option.name == name), None)


@traced
def parse_option_bool(name: str, value: str | None) -> tuple[int, int]:
    """Parse "on" or "off", no value meaning on; 0 or -1, and the flag."""
    if value is not None and value not in ("on", "off"):
        return _complain(f"Option '{name}': Use 'on' or 'off'"), 0
    return 0, int(value != "off")


@traced
def parse_option_number(name: str, value: str | None) -> tuple[int, int]:
    """Parse a number in C's notation; 0 or -1, and the number."""
    if value is None:
        return _complain(f"Option '{name}' needs a parameter"), 0
    number, rest = strtoll(value)
    if rest:
        return _complain(f"Option '{name}' needs a number as parameter"), 0
    return 0, number


@traced
def parse_option_size(name: str, value: str | None) -> tuple[int, int]:
    """Parse a size with an optional suffix k, K, M, G or T; 0 or -1, and the bytes.

    Only the suffix's first letter is looked at, and a text without digits is size 0.
    """
    if value is None:
        return _complain(f"Option '{name}' needs a parameter"), 0
    sizef, postfix = _strtod(value)
    shift = _SIZE_UNITS.get(postfix[:1])
    size = sizef * 2.0**shift if shift is not None else 0.0
    if shift is None or not -_INT64_MAX < size < _INT64_MAX:
        _complain(f"Option '{name}' needs size as parameter")
        return _complain(
            "You may use k, M, G or T suffixes for kilobytes, megabytes, gigabytes and terabytes."
        ), 0
    return 0, int(size)


@traced
def set_option_parameter(list: OptionList | None, name: str, value: str | None) -> int:
    """Set option `name` from text, parsed by the option's type; 0 or -1."""
    option = get_option_parameter(list, name)
    if option is None:
        return _complain(f"Unknown option '{name}'")
    if option.type == OPT_FLAG:
        ret, number = parse_option_bool(name, value)
    elif option.type == OPT_SIZE:
        ret, number = parse_option_size(name, value)
    elif option.type == OPT_STRING:
        if value is None:
            return _complain(f"Option '{name}' needs a parameter")
        option.s = value
        return 0
    else:
        return _complain(f"Bug: Option '{name}' has an unknown type")
    if ret == 0:
        option.n = number
    return ret


@traced
def set_option_parameter_int(list: OptionList | None, name: str, value: int) -> int:
    """Set option `name`, which is not a string, to a number; 0 or -1."""
    option = get_option_parameter(list, name)
    if option is None:
        return _complain(f"Unknown option '{name}'")
    if option.type == OPT_STRING:
        return -1
    option.n = value
    return 0


@traced
def free_option_parameters(list: OptionList | None) -> None:
    """Forget the strings of `list`; the list itself is the garbage collector's."""
    for option in list or ():
        if option.type == OPT_STRING:
            option.s = None


@traced
def parse_option_parameters(
    param: str, list: OptionList | None, dest: OptionList | None
) -> OptionList | None:
    """Parse `param` into `dest`, or into a new copy of `list` when `dest` is None.

    Returns
    -------
    list of QEMUOptionParameter or None
        None when `list` is None or `param` is wrong, which has then been said on stderr.
    """
    if list is None:
        return None
    allocated = None
    if dest is None:
        dest = allocated = [
            QEMUOptionParameter(name=o.name, type=o.type, n=o.n, s=o.s, help=o.help) for o in list
        ]
    while param:
        comma, equals = param.find(","), param.find("=")
        value: str | None = None
        if equals >= 0 and (equals < comma or comma < 0):
            param, name = get_opt_name(256, param, "=")
            param, value = get_opt_value(256, param[1:])
        else:
            param, name = get_opt_name(256, param, ",")
        param = param[1:]
        if set_option_parameter(dest, name, value):
            free_option_parameters(allocated)
            return None
    return dest


@traced
def print_option_parameters(list: OptionList | None) -> None:
    """Print the options that have a value, each followed by a blank, to stdout."""
    for option in list or ():
        if option.type == OPT_STRING:
            if option.s is not None:
                print(f"{option.name}='{option.s}'", end=" ")
        elif option.type == OPT_FLAG:
            print(f"{option.name}={'on' if option.n else 'off'}", end=" ")
        else:
            print(f"{option.name}={option.n}", end=" ")


@traced
def print_option_help(list: OptionList | None) -> None:
    """Print every option's name and meaning to stdout."""
    print("Supported options:")
    for option in list or ():
        print(f"{option.name:<16} {option.help or 'No description available'}")
