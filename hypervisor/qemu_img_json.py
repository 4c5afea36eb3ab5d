"""JSON as QEMU 7.2 prints it.

- `pretty(value) -> str`: indented by four, object members in the order of QEMU's hash table.
"""

import json
from typing import Any

_BUCKETS = 512


def _bucket(key: str) -> int:
    """Give the bucket of qobject/qdict.c that a key falls into."""
    name = key.encode()
    value = 0x238F13AF * len(name)
    for i, byte in enumerate(name):
        value += byte << (i * 5 % 24)
    return (1103515243 * value + 12345) % (1 << 32) % _BUCKETS


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        # A bucket's newest entry comes first.
        keys = sorted(reversed(list(value)), key=_bucket)
        return {key: _ordered(value[key]) for key in keys}
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return value


def pretty(value: Any) -> str:
    """Write `value` as 7.2's ``--output=json`` does.

    >>> print(pretty({"filename": "a.img", "format": "raw"}))
    {
        "filename": "a.img",
        "format": "raw"
    }
    """
    return json.dumps(_ordered(value), indent=4, ensure_ascii=False)
