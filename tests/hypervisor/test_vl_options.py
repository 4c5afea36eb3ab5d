"""The emulator's command line: what it refuses, in QEMU's words, and what it stores for later."""

import io
import os
import re
import subprocess
import sys

import pytest

from graphs import recordings
from hypervisor import vl_options
from hypervisor.boot import run_boot
from hypervisor.errors import HypervisorError
from hypervisor.hw import pc
from studykvm import guests
from tests.hypervisor import guest_code as asm

DATES = "Invalid date format. Valid formats are:\n'2006-06-17T16:01:21' or '2006-06-17'\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guests.write_demo_disk("base.img", 1 << 20)
    return tmp_path


def refused(capsys, *argv):
    """Run with wrong options; what was printed on stderr."""
    result = run_boot([*argv, "-net", "none"], 10)
    assert (result.status, result.reason) == (1, "options")
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-foo"], "qemu-system-x86_64: invalid option -- '-foo'\n"),
        (["--foo"], "qemu-system-x86_64: invalid option -- '-foo'\n"),
        (["-m", "12q"], "qemu: invalid ram size: 12q\n"),
        (["-m", "5000"], "qemu: without kvm support at most 4095 MB RAM can be simulated\n"),
        (["-boot", "z"], "Invalid boot device 'z'\n"),
        (["-boot", "cc"], "Boot device 'c' was given twice\n"),
        (["-boot", "ordre=c"], "qemu: unknown boot parameter 'ordre' in 'ordre=c'\n"),
        (["-boot", "menu=x"], "qemu: invalid option value 'x'\n"),
        (["-boot", "order=p"], "Invalid boot device for PC: 'p'\n"),
        (["-hdachs", "1,17,1"], "qemu: invalid physical CHS format\n"),
        (["-hda", "gone.img"], "qemu: could not open disk image gone.img: No such file or directory\n"),
        (["-hda", "."], "qemu: could not open disk image .: Is a directory\n"),
        (["-drive", "file=base.img,if=foo"], "qemu: unsupported bus type 'foo'\n"),
        (["-drive", "file=base.img,media=tape"], "qemu: 'tape' invalid media\n"),
        (["-drive", "file=base.img,cache=no"], "qemu: invalid cache option\n"),
        (["-drive", "file=base.img,aio=x"], "qemu: invalid aio option\n"),
        (["-drive", "file=base.img,format=x"], "qemu: 'x' invalid format\n"),
        (["-drive", "file=base.img,trans=lba"], "qemu: 'lba' trans must be used with cyls,heads and secs\n"),
        (["-drive", "file=base.img,cyls=0,heads=1,secs=1"], "qemu: '(null)' invalid physical cyls number\n"),
        (["-drive", "file=base.img,index=0,unit=1"], "qemu: index cannot be used with bus and unit\n"),
        (["-drive", "file=base.img,unit=2"], "qemu: unit 2 too big (max is 1)\n"),
        (["-drive", "file=base.img,bus=2"], "qemu: too many IDE bus\n"),
        (["-drive", "file=base.img,werror=x"], "qemu: 'x' invalid write error action\n"),
        (["-drive", "file=base.img,rerror=enospc"], "qemu: 'enospc' invalid read error action\n"),
        (["-drive", "file=base.img,if=floppy,werror=stop"], "werror is no supported by this format\n"),
        (["-drive", "file=base.img,addr=3"], "addr is not supported\n"),
        (
            ["-drive", "file=base.img,readonly=on"],
            "qemu: readonly flag not supported for drive with ide interface\n",
        ),
        (["-serial", "bogus"], "qemu: could not open serial device 'bogus': Invalid argument\n"),
        (["-monitor", "bogus"], "parse error: bogus\n"),
        (["-set", "nothing"], 'can\'t parse: "nothing"\n'),
        (["-name", "a,b"], "Unknown subargument b to -name\n"),
        (
            ["-rtc", "base=utc,driftfix=none"],
            'option "driftfix" is not valid for rtc\nparse error: base=utc,driftfix=none\n',
        ),
        (["-rtc", "base=soon"], DATES),
        (["-rtc", "clock=wall"], "qemu: invalid option value 'wall'\n"),
        (["-startdate", "2006-06"], DATES),
        (["-vga", "foo"], "Unknown vga type: foo\n"),
        (["-cpu", "foo"], "Unable to find x86 CPU definition\n"),
        (["-smp", "2,maxcpus=1"], "maxcpus must be equal to or greater than smp\n"),
        (["-smp", "1,maxcpus=256"], "Unsupported number of maxcpus\n"),
        (["-pidfile", "gone/pid"], "Could not acquire pid file: No such file or directory\n"),
        (["-readconfig", "gone.cfg"], "open gone.cfg: No such file or directory\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals_in_the_words_of_qemu(here, capsys, argv, message):
    assert refused(capsys, *argv) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("nonsense=1", 'option "nonsense" is not valid for drive\n'),
        (
            "snapshot=maybe",
            "Option 'snapshot': Use 'on' or 'off'\nFailed to parse \"maybe\" for \"drive.snapshot\"\n",
        ),
    ],
)
def test_a_drive_that_cannot_be_stored_is_left_out_and_the_machine_made(here, capsys, options, message):
    result = run_boot(["-drive", f"file=base.img,{options}", "-net", "none"], 1)
    said = f"{message}drive_add: huh? duplicate? (file=base.img,{options})\n"
    assert capsys.readouterr().err.startswith(said)
    assert (result.reason, result.screen) == ("stuck", "No bootable device.")
    assert "drive-left-out" in result.notes


def test_an_option_at_the_end_wants_its_argument(capsys):
    result = run_boot(["-hda"], 10)
    assert result.status == 1
    assert capsys.readouterr().err == "qemu-system-x86_64: option '-hda' requires an argument\n"


def test_the_missing_image_of_the_recording(here, capsys):
    scenario = recordings.load("d06").scenario
    assert run_boot(scenario.argv[1:], 10).status == 1
    printed = capsys.readouterr()
    assert scenario.output == printed.err + "rc=1\n"


@pytest.mark.parametrize(
    "argv",
    [["-vnc", ":1"], ["-usb"], ["-smp", "2"], ["-M", "isapc"]],
    ids=lambda argv: argv[0],
)
def test_what_the_model_lacks_is_known_by_name(here, argv):
    with pytest.raises(HypervisorError, match=r"the model (lacks|has no|has one)"):
        run_boot(["-hda", "base.img", *argv], 10)


@pytest.mark.parametrize("argv", [["-net", "user"], ["-drive", "file=base.img,if=scsi"]])
def test_what_the_model_lacks_behind_an_option_is_said_too(here, argv):
    with pytest.raises(HypervisorError, match="the model has no"):
        run_boot(["-hda", "base.img", *argv], 10)


def test_version_and_help(capsys):
    assert run_boot(["-version"]).status == 0
    line = capsys.readouterr().out
    assert line.startswith("QEMU PC emulator version 0.12.4")
    for option in ("-h", "-help"):
        assert run_boot([option]).status == 0
        text = capsys.readouterr().out
        assert text.startswith(line) and "usage: qemu [options] [disk_image]" in text
        lacking = text[text.index("that the model lacks:") :]
        assert "-hda file" in text and "-vnc" in lacking and "-hda " not in lacking


def test_machines_are_listed(capsys):
    assert run_boot(["-M", "?"]).status == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed == [
        "Supported machines are:",
        "pc         Standard PC (alias of pc-0.12)",
        "pc-0.12    Standard PC (default)",
        "pc-0.11    Standard PC, qemu 0.11",
        "pc-0.10    Standard PC, qemu 0.10",
        "isapc      ISA-only PC",
    ]
    assert run_boot(["-M", "c64"]).status == 1


@pytest.mark.parametrize("machine", ["pc", "pc-0.11", "pc-0.10"])
def test_old_machines_boot(here, machine):
    assert run_boot(["-M", machine, "-hda", "base.img", "-net", "none"], 10).reason == "guest"


def test_drive_formats_are_listed_in_the_order_of_2010(here, capsys):
    err = refused(capsys, "-drive", "file=base.img,format=?")
    names = "cow qcow vdi vmdk cloop dmg bochs vpc vvfat qcow2 parallels nbd"
    assert err == f"qemu: Supported formats: {names} host_cdrom host_floppy host_device raw\n"


def test_a_place_given_twice_keeps_the_first(here):
    asm.write_disk("other.img", asm.put("X") + asm.OFF)
    result = run_boot(["-hda", "base.img", "-hda", "other.img", "-net", "none"], 10)
    assert "Demo guest" in result.screen


def test_options_survive_a_config_file(here):
    run_boot(["-drive", "file=base.img,id=d0,cache=writeback", "-writeconfig", "c.cfg", "-M", "?"])
    text = (here / "c.cfg").read_text()
    assert text == '# qemu config file\n\n[drive "d0"]\n  file = "base.img"\n  cache = "writeback"\n\n'
    assert run_boot(["-readconfig", "c.cfg", "-net", "none"], 10).reason == "guest"


def test_set_and_global_reach_their_targets(here):
    argv = ["-drive", "file=gone.img,id=d0", "-set", "drive.d0.file=base.img", "-global", "ide-drive.ver=9"]
    assert run_boot([*argv, "-net", "none"], 10).reason == "guest"


def test_hdachs_decides_the_geometry_the_guest_sees(here):
    # ah=8: get geometry; print cl & 3f (sectors) and dh (last head) as letters
    code = bytes.fromhex("b408b280cd1388f080c14188c8") + bytes.fromhex("b40ebb0700cd10") + asm.OFF
    asm.write_disk("geo.img", code)
    result = run_boot(["-hdachs", "2,4,9", "-hda", "geo.img", "-net", "none"], 10)
    assert result.screen.splitlines()[-1] == chr(ord("A") + 9)


def test_every_option_of_the_real_table_is_known():
    """The list of the real program's help, less what Xen and other processors have."""
    names = set(vl_options.qemu_options)
    assert {"hda", "drive", "snapshot", "no-kvm", "incoming", "qmp", "icount", "watchdog-action"} <= names
    assert len(names) == 109


def test_closed_standard_input_and_output_of_a_pipe(here):
    argv = [sys.executable, "-m", "studykvm", "boot", "-net", "none", "-hda", "base.img"]
    how = {"capture_output": True, "text": True, "timeout": 60, "env": asm.ENVIRONMENT}
    done = subprocess.run([*argv], stdin=subprocess.DEVNULL, **how)
    assert done.returncode == 0
    assert done.stdout.endswith("Sector 5 written and read back. Switching off.\n")
    assert re.match(r"\nWhat the real qemu-kvm 0.12.4 does", done.stderr)
    done = subprocess.run(["bash", "-c", 'exec "$@" <&-', "bash", *argv, "-nographic"], **how)
    assert done.returncode == 0 and "Switching off." in done.stdout


def test_output_can_be_captured_within_the_process(here, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    run_boot(["-hda", "base.img", "-net", "none", "-nographic", "-serial", "stdio", "-monitor", "null"], 10)
    assert "Switching off." in screen.getvalue()


def test_the_guests_clock_starts_as_told_without_a_screen(here):
    options = [
        "-startdate",
        "2006-06-17T16:01:21",
        "-vga",
        "none",
        "-no-hpet",
        "-pidfile",
        "pid",
        "-net",
        "none",
    ]
    assert run_boot(["-hda", "base.img", *options], 10).reason == "guest"
    assert (here / "pid").read_text() == f"{os.getpid()}\n"
    assert pc.rtc_state is not None
    now = pc.rtc_state.current_tm
    assert (now.tm_year, now.tm_mon, now.tm_mday, now.tm_hour) == (106, 5, 17, 16)


def test_once_is_taken_back_by_the_reset_before_the_start(here):
    result = run_boot(["-hda", "base.img", "-boot", "once=d,order=c", "-net", "none"], 10)
    assert result.reason == "guest"
    assert "boot-once" in result.notes
    assert pc.rtc_state is not None and pc.rtc_state.cmos_data[0x3D] == 2


def test_a_disk_is_made_by_device(here):
    asm.write_disk("base.img", asm.put("X") + asm.OFF)
    options = [
        "-drive",
        "file=base.img,if=none,id=n",
        "-device",
        "ide-drive,drive=n,bus=ide.1",
        "-net",
        "none",
    ]
    result = run_boot(options, 10)
    assert (result.reason, "X" in result.screen) == ("guest", True)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        (
            ",drive=n",
            'property "ide-drive.drive": failed to parse "n"\n'
            'can\'t set property "drive" to "n" for "ide-drive"\n',
        ),
        ("", "ide-drive: no drive specified\nError initializing device ide-drive\n"),
        (",bus=ide.7", 'bus "ide.7" not found\nDid not find ide.7 bus for ide-drive\n'),
    ],
    ids=["no such drive", "no drive", "no such bus"],
)
def test_devices_that_are_not_made(here, capsys, properties, message):
    assert refused(capsys, "-device", f"ide-drive{properties}") == message
