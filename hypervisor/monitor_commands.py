"""The tables of the monitor's commands: those of monitor.c and qemu-monitor.hx, and one of our own.

An entry of `MON_CMDS` is a line "NAMES ARGUMENTS HANDLER", and below it, indented, what `help` shows. NAMES
are separated by `|`; ARGUMENTS are those of `hypervisor.monitor_parse`, HANDLER is "module:function" of this
package, and - stands for none. The handler of a command that QMP has, too, returns its result; then `*`
follows, or the function that prints the result. An entry of `INFO_CMDS` has no ARGUMENTS. To give the model a
command that it lacks, write its handler where a - stands.

    handler(mon, qdict)     of a command; of `info ITEM`: handler(mon)
    user_print(mon, data)

- `mon_cmds`, `info_cmds`: the tables.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

C_FILE = "monitor.c"

MON_CMDS: Final = r"""
help|? name:s? monitor_info:do_help_cmd
    [cmd] -- show the help
commit device:B monitor_control:do_commit
    device|all -- commit changes to the disk images (if -snapshot is used) or backing files
info item:s? monitor_info:do_info *
    [subcommand] -- show various information about the system state
q|quit - monitor_control:do_quit *
    -- quit the emulator
eject force:-f,device:B monitor_control:do_eject *
    [-f] device -- eject a removable medium (use -f to force it)
change device:B,target:F,arg:s? monitor_control:do_change *
    device filename [format] -- change a removable medium, optional format
screendump filename:F monitor_keys:do_screen_dump
    filename -- save screen into PPM image 'filename'
logfile filename:F monitor_log:do_logfile
    filename -- output logs to 'filename'
log items:s monitor_log:do_log
    item1[,...] -- activate logging of the specified items to '/tmp/qemu.log'
savevm name:s? savevm_snapshots:do_savevm
    [tag|id] -- save a VM snapshot. If no tag or id are provided, a new snapshot is created
loadvm name:s savevm_snapshots:do_loadvm
    tag|id -- restore a VM snapshot from its tag or id
delvm name:s savevm_snapshots:do_delvm
    tag|id -- delete a VM snapshot from its tag or id
singlestep option:s? monitor_processor:do_singlestep
    [on|off] -- run emulation in singlestep mode or switch to normal mode
stop - monitor_control:do_stop *
    -- stop emulation
c|cont - monitor_control:do_cont *
    -- resume emulation
gdbserver device:s? monitor_processor:do_gdbserver
    [device] -- start gdbserver on given device (default 'tcp::1234'), stop with 'none'
x fmt:/,addr:l monitor_memory:do_memory_dump
    /fmt addr -- virtual memory dump starting at 'addr'
xp fmt:/,addr:l monitor_memory:do_physical_memory_dump
    /fmt addr -- physical memory dump starting at 'addr'
p|print fmt:/,val:l monitor_memory:do_print
    /fmt expr -- print expression value (use $reg for CPU register access)
i fmt:/,addr:i,index:i. monitor_memory:do_ioport_read
    /fmt addr -- I/O port read
o fmt:/,addr:i,val:i monitor_memory:do_ioport_write
    /fmt addr value -- I/O port write
sendkey string:s,hold_time:i? monitor_keys:do_sendkey
    keys [hold_ms] -- send keys to the VM (e.g. 'sendkey ctrl-alt-f1', default hold time=100 ms)
system_reset - monitor_control:do_system_reset *
    -- reset the system
system_powerdown - monitor_control:do_system_powerdown *
    -- send system power down event
sum start:i,size:i monitor_memory:do_sum
    addr size -- compute the checksum of a memory region
usb_add devname:s monitor_hotplug:do_usb_add
    device -- add USB device (e.g. 'host:bus.addr' or 'host:vendor_id:product_id')
usb_del devname:s monitor_hotplug:do_usb_del
    device -- remove USB device 'bus.addr'
device_add config:s monitor_hotplug:do_device_add
    device -- add device, like -device on the command line
device_del id:s monitor_hotplug:do_device_del
    device -- remove device
cpu index:i monitor_control:do_cpu_set
    index -- set the default CPU
mouse_move dx_str:s,dy_str:s,dz_str:s? monitor_devices:do_mouse_move
    dx dy [dz] -- send mouse move events
mouse_button button_state:i monitor_devices:do_mouse_button
    state -- change mouse button state (1=L, 2=M, 4=R)
mouse_set index:i monitor_devices:do_mouse_set
    index -- set which mouse device receives events
wavcapture path:F,freq:i?,bits:i?,nchannels:i? monitor_sound:do_wav_capture
    path [frequency [bits [channels]]] -- capture audio to a wave file (default frequency=44100 bits=16
    channels=2)
stopcapture n:i monitor_sound:do_stop_capture
    capture index -- stop capture
memsave val:l,size:i,filename:s monitor_memory:do_memory_save *
    addr size file -- save to disk virtual memory dump starting at 'addr' of size 'size'
pmemsave val:l,size:i,filename:s monitor_memory:do_physical_memory_save *
    addr size file -- save to disk physical memory dump starting at 'addr' of size 'size'
boot_set bootdevice:s monitor_control:do_boot_set
    bootdevice -- define new values for the boot device list
nmi cpu_index:i monitor_processor:do_inject_nmi
    cpu -- inject an NMI on the given CPU
migrate detach:-d,blk:-b,inc:-i,uri:s migration:do_migrate *
    [-d] [-b] [-i] uri -- migrate to URI (using -d to not wait for completion)\n\t\t\t -b for migration
    without shared storage with full copy of disk\n\t\t\t -i for migration without shared storage with
    incremental copy of disk (base image shared between src and destination)
migrate_cancel - migration:do_migrate_cancel *
    -- cancel the current VM migration
migrate_set_speed value:s migration:do_migrate_set_speed
    value -- set maximum speed (in bytes) for migrations
migrate_set_downtime value:s migration:do_migrate_set_downtime
    value -- set maximum tolerated downtime (in seconds) for migrations
drive_add pci_addr:s,opts:s monitor_hotplug:drive_hot_add
    [[<domain>:]<bus>:]<slot>\n[file=file][,if=type][,bus=n]\n[,unit=m][,media=d][index=i]\n[,cyls=c,heads=h,secs=s[,trans=t]]\n[snapshot=on|off][,cache=on|off]
    -- add drive to PCI storage controller
pci_add pci_addr:s,type:s,opts:s? monitor_hotplug:pci_device_hot_add *
    auto|[[<domain>:]<bus>:]<slot> nic|storage|host [[vlan=n][,macaddr=addr][,model=type]]
    [file=file][,if=type][,bus=nr]... [host=02:00.0[,name=string][,dma=none] -- hot-add PCI device
pci_del pci_addr:s monitor_hotplug:do_pci_device_hot_remove *
    [[<domain>:]<bus>:]<slot> -- hot remove PCI device
host_net_add device:s,opts:s? monitor_hotplug:net_host_device_add
    tap|user|socket|vde|dump [options] -- add host VLAN client
host_net_remove vlan_id:i,device:s monitor_hotplug:net_host_device_remove
    vlan_id name -- remove host VLAN client
hostfwd_add arg1:s,arg2:s?,arg3:s? monitor_hotplug:net_slirp_hostfwd_add
    [vlan_id name] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport -- redirect TCP or UDP
    connections from host to guest (requires -net user)
hostfwd_remove arg1:s,arg2:s?,arg3:s? monitor_hotplug:net_slirp_hostfwd_remove
    [vlan_id name] [tcp|udp]:[hostaddr]:hostport -- remove host-to-guest TCP or UDP redirection
balloon value:M monitor_control:do_balloon *
    target -- request VM to change it's memory allocation (in MB)
set_link name:s,up_or_down:s monitor_control:do_set_link
    name up|down -- change the link status of a network adapter
watchdog_action action:s monitor_processor:do_watchdog_action
    [reset|shutdown|poweroff|pause|debug|none] -- change watchdog action
acl_show aclname:s monitor_control:do_acl_show
    aclname -- list rules in the access control list
acl_policy aclname:s,policy:s monitor_control:do_acl_policy
    aclname allow|deny -- set default access control list policy
acl_add aclname:s,match:s,policy:s,index:i? monitor_control:do_acl_add
    aclname match allow|deny [index] -- add a match rule to the access control list
acl_remove aclname:s,match:s monitor_control:do_acl_remove
    aclname match -- remove a match rule from the access control list
acl_reset aclname:s monitor_control:do_acl_reset
    aclname -- reset the access control list
mce cpu_index:i,bank:i,status:l,mcg_status:l,addr:l,misc:l monitor_processor:do_inject_mce
    cpu bank status mcgstatus addr misc -- inject a MCE on the given CPU
getfd fdname:s monitor_control:do_getfd *
    getfd name -- receive a file descriptor via SCM rights and assign it a name
closefd fdname:s monitor_control:do_closefd *
    closefd name -- close a file descriptor previously passed via SCM rights
block_passwd device:B,password:s monitor_control:do_block_set_passwd *
    block_passwd device password -- set the password of encrypted block devices
cpu_set cpu:i,state:s monitor_processor:do_cpu_set_nr
    cpu [online|offline] -- change cpu state
trace what:s?,file:s? monitor_trace:do_trace
    on|off|status|save FILE|tail [N] -- record the calls of this very program (studykvm)
"""

INFO_CMDS: Final = r"""
version monitor_info:do_info_version do_info_version_print
    -- show the version of QEMU
commands monitor_info:do_info_commands monitor_user_noop
    -- list QMP available commands
network monitor_devices:do_info_network -
    -- show the network state
chardev qemu_char_open:qemu_chr_info qemu_chr_info_print
    -- show the character devices
block block:bdrv_info bdrv_info_print
    -- show the block devices
blockstats block:bdrv_info_stats bdrv_stats_print
    -- show block device statistics
registers monitor_cpu:do_info_registers -
    -- show the cpu registers
cpus monitor_cpu:do_info_cpus monitor_print_cpus
    -- show infos for each CPU
history monitor_info:do_info_history -
    -- show the command line history
irq monitor_devices:irq_info -
    -- show the interrupts statistics (if available)
pic monitor_devices:pic_info -
    -- show i8259 (PIC) state
pci monitor_devices:pci_info -
    -- show PCI info
tlb monitor_cpu:tlb_info -
    -- show virtual to physical memory mappings
mem monitor_cpu:mem_info -
    -- show the active virtual memory mappings
hpet monitor_info:do_info_hpet do_info_hpet_print
    -- show state of HPET
jit - -
    -- show dynamic compiler info
kvm monitor_info:do_info_kvm do_info_kvm_print
    -- show KVM information
numa monitor_info:do_info_numa -
    -- show NUMA information
usb monitor_devices:usb_info -
    -- show guest USB devices
usbhost - -
    -- show host USB devices
profile monitor_info:do_info_profile -
    -- show profiling information
capture monitor_sound:do_info_capture -
    -- show capture information
snapshots savevm_snapshots:do_info_snapshots -
    -- show the currently saved VM snapshots
status monitor_info:do_info_status do_info_status_print
    -- show the current VM status (running|paused)
pcmcia monitor_devices:pcmcia_info -
    -- show guest PCMCIA status
mice monitor_devices:do_info_mice do_info_mice_print
    -- show which guest mouse is receiving events
vnc monitor_devices:do_info_vnc do_info_vnc_print
    -- show the vnc server status
name monitor_info:do_info_name do_info_name_print
    -- show the current VM name
uuid monitor_info:do_info_uuid do_info_uuid_print
    -- show the current VM UUID
usernet monitor_hotplug:do_info_usernet -
    -- show user network stack connection states
migrate migration:do_info_migrate do_info_migrate_print
    -- show migration status
balloon monitor_control:do_info_balloon monitor_user_noop
    -- show balloon information
qtree monitor_devices:do_info_qtree -
    -- show device tree
qdm monitor_devices:do_info_qdm -
    -- show qdev device model list
roms monitor_devices:do_info_roms -
    -- show roms
"""


class Command(NamedTuple):
    """`mon_cmd_t`: an entry of a table."""

    name: str
    args_type: str
    params: str
    help: str
    mhandler: str
    user_print_name: str

    def is_modelled(self) -> bool:
        """Whether the model has the command."""
        return bool(self.mhandler)

    def handler(self) -> Callable[..., Any]:
        """The function that obeys the command."""
        return _function(self.mhandler)

    @property
    def user_print(self) -> Callable[[Any, Any], None] | None:
        """The function that prints the result for humans; None for a command that QMP lacks."""
        if not self.user_print_name:
            return None
        if self.user_print_name in ("*", "monitor_user_noop"):
            return _function("monitor_info:monitor_user_noop")
        return _function(f"{self.mhandler.partition(':')[0]}:{self.user_print_name}")


def _function(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(f"hypervisor.{module}"), name)
    return found


def _read(table: str, arguments: bool) -> list[Command]:
    entries: list[tuple[str, list[str]]] = []
    for line in table.strip().splitlines():
        if line.startswith(" "):
            entries[-1][1].append(line.strip())
        else:
            entries.append((line, []))
    return [_command(first, " ".join(help), arguments) for first, help in entries]


def _command(first: str, text: str, arguments: bool) -> Command:
    words = ["" if word == "-" else word for word in first.split(" ")]
    if not arguments:
        words.insert(1, "")
    name, args_type, mhandler, *user_print = words
    params, _, help = text.replace(r"\n", "\n").replace(r"\t", "\t").partition("-- ")
    return Command(name, args_type, params.removesuffix(" "), help, mhandler, "".join(user_print))


mon_cmds: list[Command] = _read(MON_CMDS, arguments=True)
info_cmds: list[Command] = _read(INFO_CMDS, arguments=False)
