"""The handshake of an NBD server, from greeting to the first request: fixed newstyle.

- ``Agreed``: what both sides settled on
- ``answer(option, data, export, agreed)``: the replies to one option, and whether it ended the handshake

Options that this server does not know, TLS among them, are refused one by one and the handshake goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hypervisor import nbd_format as f
from hypervisor.nbd_export import Export

PREFERRED_BLOCK = 4096
CONTEXT_ID = 1
"""The number by which block status names base:allocation."""


@dataclass
class Agreed:
    """What client and server settled on: structured replies, block status, 124 zeros left out."""

    structured: bool = False
    allocation: bool = False
    no_zeroes: bool = False


def answer(option: int, data: bytes, export: Export, agreed: Agreed) -> tuple[bytes, bool]:
    """Answer one option.

    Returns
    -------
    tuple of bytes and bool
        What to send, and whether requests follow.

    Raises
    ------
    Malformed
        Where only hanging up is left: EXPORT_NAME has no error reply.
    """
    if option == f.OPT_EXPORT_NAME:
        if data:
            raise f.Malformed(f"no export is named {data[:80]!r}; the only one has an empty name")
        zeros = b"" if agreed.no_zeroes else bytes(124)
        return f.EXPORT_NAME_REPLY.pack(export.size, _flags(export, agreed)) + zeros, True
    try:
        if option in (f.OPT_INFO, f.OPT_GO):
            return _info(option, data, export, agreed)
        if option in (f.OPT_LIST_META_CONTEXT, f.OPT_SET_META_CONTEXT):
            return b"".join(_contexts(option, data, agreed)), False
    except f.Malformed as wrong:
        return _reply(option, f.REP_ERR_INVALID, str(wrong).encode()), False
    if option in (f.OPT_LIST, f.OPT_STRUCTURED_REPLY) and data:
        return _reply(option, f.REP_ERR_INVALID, b"this option has no data"), False
    if option == f.OPT_LIST:
        return _reply(option, f.REP_SERVER, f.LENGTH.pack(0)) + _reply(option, f.REP_ACK), False
    if option == f.OPT_STRUCTURED_REPLY:
        agreed.structured = True
        return _reply(option, f.REP_ACK), False
    return _reply(option, f.REP_ERR_UNSUP, b"not offered"), False


def acknowledge(option: int) -> bytes:
    """Give the reply that says yes and nothing more."""
    return _reply(option, f.REP_ACK)


def _reply(option: int, kind: int, data: bytes = b"") -> bytes:
    return f.OPTION_REPLY.pack(f.OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def _flags(export: Export, agreed: Agreed) -> int:
    return export.flags | (f.FLAG_SEND_DF if agreed.structured else 0)


def _info(option: int, data: bytes, export: Export, agreed: Agreed) -> tuple[bytes, bool]:
    name, at = f.counted(data, 0)
    if len(data) < at + 2 or len(data) != at + 2 + 2 * int.from_bytes(data[at : at + 2], "big"):
        raise f.Malformed("the number of informations does not fit the option's length")
    wanted = {kind for (kind,) in f.INFO_TYPE.iter_unpack(data[at + 2 :])}
    if name:
        return _reply(option, f.REP_ERR_UNKNOWN, b"the only export has an empty name"), False
    infos = [
        f.INFO_EXPORT.pack(f.EXPORT, export.size, _flags(export, agreed)),
        f.INFO_BLOCK_SIZE.pack(f.BLOCK_SIZE, 1, PREFERRED_BLOCK, f.MAX_REQUEST),
    ]
    if f.NAME in wanted:
        infos.append(f.INFO_TYPE.pack(f.NAME))
    replies = b"".join(_reply(option, f.REP_INFO, info) for info in infos)
    return replies + _reply(option, f.REP_ACK), option == f.OPT_GO


def _contexts(option: int, data: bytes, agreed: Agreed) -> Iterator[bytes]:
    setting = option == f.OPT_SET_META_CONTEXT
    if not agreed.structured:
        raise f.Malformed("structured replies come before contexts")
    name, at = f.counted(data, 0)
    if at + f.LENGTH.size > len(data):
        raise f.Malformed("an option ends within a length")
    (count,) = f.LENGTH.unpack_from(data, at)
    at += f.LENGTH.size
    queries: list[bytes] = []
    while at < len(data) and len(queries) < count:
        query, at = f.counted(data, at)
        queries.append(query)
    if len(queries) != count or at != len(data):
        raise f.Malformed("the number of contexts does not fit the option's length")
    if name:
        yield _reply(option, f.REP_ERR_UNKNOWN, b"the only export has an empty name")
        return
    matches = f.BASE_ALLOCATION in queries or (not setting and (not queries or b"base:" in queries))
    if setting:
        agreed.allocation = matches
    if matches:
        yield _reply(option, f.REP_META_CONTEXT, f.LENGTH.pack(CONTEXT_ID) + f.BASE_ALLOCATION)
    yield _reply(option, f.REP_ACK)
