"""What goes over the wire of the Network Block Device protocol, fixed newstyle, as it stands there.

Numbers are big-endian. 0.12.4's own nbd.c speaks the oldstyle handshake, which has no options; today's
clients no longer want it, so the server follows the protocol's specification (NetworkBlockDevice/nbd,
doc/proto.md) instead.

- ``GREETING``, ``OPTION``, ``OPTION_REPLY``, ``EXPORT_NAME_REPLY``: the handshake's pieces
- ``REQUEST``, ``SIMPLE_REPLY``, ``CHUNK``: those of the transmission
- ``error_number(code)``: the protocol's error for a negative errno
- ``Malformed``: what a peer sent is not NBD

::

    handshake      server: GREETING   client: flags   then any number of   client: OPTION data
                                                                           server: OPTION_REPLY data
    transmission   client: REQUEST [data]             server: SIMPLE_REPLY [data]  or  CHUNK data ...
"""

import errno
import struct

NBD_MAGIC = 0x4E42444D41474943
OPTION_MAGIC = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668E33EF

DEFAULT_PORT = 10809

GREETING = struct.Struct(">QQH")
"""NBD_MAGIC, OPTION_MAGIC, handshake flags."""
CLIENT_FLAGS = struct.Struct(">I")
OPTION = struct.Struct(">QII")
"""OPTION_MAGIC, option, length of the data that follow."""
OPTION_REPLY = struct.Struct(">QIII")
"""OPTION_REPLY_MAGIC, option, reply type, length."""
EXPORT_NAME_REPLY = struct.Struct(">QH")
"""Size in bytes, transmission flags; 124 zeros follow unless both sides did without."""
LENGTH = struct.Struct(">I")
INFO_TYPE = struct.Struct(">H")
INFO_EXPORT = struct.Struct(">HQH")
INFO_BLOCK_SIZE = struct.Struct(">HIII")
REQUEST = struct.Struct(">IHHQQI")
"""REQUEST_MAGIC, command flags, command, cookie, offset, length."""
SIMPLE_REPLY = struct.Struct(">IIQ")
"""SIMPLE_REPLY_MAGIC, error, cookie."""
CHUNK = struct.Struct(">IHHQI")
"""CHUNK_MAGIC, flags, type, cookie, length."""
CHUNK_OFFSET = struct.Struct(">Q")
CHUNK_ERROR = struct.Struct(">IH")
EXTENT = struct.Struct(">II")
"""Length in bytes, state."""

FLAG_FIXED_NEWSTYLE = 1 << 0
FLAG_NO_ZEROES = 1 << 1

FLAG_HAS_FLAGS = 1 << 0
FLAG_READ_ONLY = 1 << 1
FLAG_SEND_FLUSH = 1 << 2
FLAG_SEND_FUA = 1 << 3
FLAG_SEND_TRIM = 1 << 5
FLAG_SEND_WRITE_ZEROES = 1 << 6
FLAG_SEND_DF = 1 << 7
FLAG_CAN_MULTI_CONN = 1 << 8

OPT_EXPORT_NAME = 1
OPT_ABORT = 2
OPT_LIST = 3
OPT_INFO = 6
OPT_GO = 7
OPT_STRUCTURED_REPLY = 8
OPT_LIST_META_CONTEXT = 9
OPT_SET_META_CONTEXT = 10

REP_ACK = 1
REP_SERVER = 2
REP_INFO = 3
REP_META_CONTEXT = 4
REP_ERR_UNSUP = 0x80000001
REP_ERR_INVALID = 0x80000003
REP_ERR_UNKNOWN = 0x80000006

EXPORT, NAME, DESCRIPTION, BLOCK_SIZE = 0, 1, 2, 3
"""What a client may ask to be informed of."""

CMD_READ = 0
CMD_WRITE = 1
CMD_DISC = 2
CMD_FLUSH = 3
CMD_TRIM = 4
CMD_WRITE_ZEROES = 6
CMD_BLOCK_STATUS = 7
CMD_FLAG_FUA = 1 << 0
CMD_FLAG_NO_HOLE = 1 << 1
CMD_FLAG_DF = 1 << 2
CMD_FLAG_REQ_ONE = 1 << 3

CHUNK_DONE = 1 << 0
CHUNK_NONE = 0
CHUNK_DATA = 1
CHUNK_BLOCK_STATUS = 5
CHUNK_IS_ERROR = (1 << 15) + 1

BASE_ALLOCATION = b"base:allocation"
STATE_HOLE = 1 << 0
STATE_ZERO = 1 << 1

MAX_REQUEST = 32 << 20
"""The most that one request reads or writes, in bytes."""
MAX_OPTION = 64 << 10
"""The longest option."""

_KNOWN = {errno.EPERM, errno.EIO, errno.ENOMEM, errno.EINVAL, errno.ENOSPC, errno.EOVERFLOW, errno.ENOTSUP}


class Malformed(Exception):
    """What a peer sent is not NBD, or more than the server takes; the connection ends."""


def error_number(code: int) -> int:
    """Give the protocol's error number of a negative errno.

    >>> error_number(-28), error_number(-13), error_number(-123)
    (28, 1, 5)
    """
    if code in (-errno.EACCES, -errno.EROFS):
        return errno.EPERM
    return -code if -code in _KNOWN else errno.EIO


def counted(data: bytes, at: int) -> tuple[bytes, int]:
    """Take a counted string out of an option's data: the string, and where it ends.

    Raises
    ------
    Malformed
        When the data ends before the string does.

    Examples
    --------
    >>> counted(bytes([0, 0, 0, 2]) + b"abc", 0)
    (b'ab', 6)
    """
    if at + LENGTH.size > len(data):
        raise Malformed("an option ends within a length")
    (length,) = LENGTH.unpack_from(data, at)
    at += LENGTH.size
    if at + length > len(data):
        raise Malformed("an option is shorter than the string in it")
    return data[at : at + length], at + length
