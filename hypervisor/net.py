"""Networking as far as its options: net.c. The model has no network card, so only "none" is accepted."""

from __future__ import annotations

import sys
from typing import Any

from hypervisor.errors import HypervisorError
from hypervisor.qemu_config import qemu_net_opts, qemu_netdev_opts
from hypervisor.qemu_option import (
    QemuOptDesc,
    QemuOpts,
    QemuOptsList,
    QemuOptType,
    qemu_opt_get,
    qemu_opt_get_number,
    qemu_opts_foreach,
    qemu_opts_id,
    qemu_opts_parse,
    qemu_opts_validate,
)
from tracer import traced

C_FILE = "net.c"

_LACKING = ("nic", "user", "tap", "socket", "vde", "dump")
_NONE_DESC = [
    QemuOptDesc(name="type", type=QemuOptType.QEMU_OPT_STRING),
    QemuOptDesc(name="vlan", type=QemuOptType.QEMU_OPT_NUMBER),
]


@traced(file="net/slirp.c")
def net_slirp_parse_legacy(opts_list: QemuOptsList, optarg: str) -> tuple[int, int]:
    """Whether the text is the old spelling of a user network's channel: it is not."""
    return 0, 0


@traced
def net_client_parse(opts_list: QemuOptsList, optarg: str) -> int:
    """Store -net or -netdev; 0, or -1 after a message."""
    net_slirp_parse_legacy(opts_list, optarg)
    return 0 if qemu_opts_parse(opts_list, optarg, "type") is not None else -1


@traced
def net_client_init(mon: None, opts: QemuOpts, is_netdev: int) -> int:
    """Make what an option asks for."""
    kind = qemu_opt_get(opts, "type")
    if qemu_opts_id(opts) is None:
        qemu_opt_get(opts, "name")
    if kind in _LACKING:
        raise HypervisorError(f"the model has no network: use -net none instead of -net {kind}")
    if kind != "none" or is_netdev:
        print(f"Invalid -net type '{kind}'", file=sys.stderr)
        return -1
    if qemu_opts_validate(opts, _NONE_DESC) == -1:
        return -1
    qemu_opt_get_number(opts, "vlan", 0)
    return 0


@traced
def net_init_client(opts: QemuOpts, dummy: Any) -> int:
    """Make what one -net asks for."""
    return -1 if net_client_init(None, opts, 0) < 0 else 0


@traced
def net_init_netdev(opts: QemuOpts, dummy: Any) -> int:
    """Make what one -netdev asks for."""
    return net_client_init(None, opts, 1)


@traced
def net_init_clients() -> int:
    """Make what the options ask for; without any, there is no network."""
    if qemu_opts_foreach(qemu_netdev_opts, net_init_netdev, None, 1) == -1:
        return -1
    return -1 if qemu_opts_foreach(qemu_net_opts, net_init_client, None, 1) == -1 else 0


@traced
def net_check_clients() -> None:
    """Warn of networks that nobody is on; there are none."""
