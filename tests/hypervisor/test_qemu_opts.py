"""Option groups: text to options, and how a repeated, unknown or ill-formed one is met."""

from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor import qemu_option as opt
from hypervisor.qemu_option import QemuOptDesc, QemuOptsList, QemuOptType


def group(**kinds):
    kinds = {name: QemuOptType[f"QEMU_OPT_{kind}"] for name, kind in kinds.items()}
    return QemuOptsList(name="t", desc=[QemuOptDesc(name=name, type=kind) for name, kind in kinds.items()])


def pairs(opts):
    return [(entry.name, entry.str) for entry in opts.head]


def test_flags_values_and_doubled_commas():
    opts = opt.qemu_opts_parse(group(), "stdio,mux,nowait,path=a,,b,id=m0", "backend")
    assert pairs(opts) == [("backend", "stdio"), ("mux", "on"), ("wait", "off"), ("path", "a,b")]
    assert opt.qemu_opts_id(opts) == "m0"


def test_the_last_of_several_counts():
    opts = opt.qemu_opts_parse(group(), "file=a,file=b", None)
    assert opt.qemu_opt_get(opts, "file") == "b"
    assert opt.qemu_opt_get(opts, "other") is None


def test_values_are_read_by_their_description():
    opts = opt.qemu_opts_parse(group(n="NUMBER", b="BOOL", s="SIZE"), "n=0x10,b=off,s=3k", None)
    assert opt.qemu_opt_get_number(opts, "n", 5) == 16
    assert opt.qemu_opt_get_bool(opts, "b", 1) == 0
    assert opt.qemu_opt_get_size(opts, "s", 0) == 3072
    assert opt.qemu_opt_get_number(opts, "m", 5) == 5


def test_an_unknown_option_or_bad_value_leaves_no_group_behind(capsys):
    options = group(n="NUMBER")
    assert opt.qemu_opts_parse(options, "x=1", None) is None
    assert opt.qemu_opts_parse(options, "n=one", None) is None
    assert options.head == []
    assert capsys.readouterr().err == (
        'option "x" is not valid for t\n'
        "Option 'n' needs a number as parameter\n"
        'Failed to parse "one" for "t.n"\n'
    )


def test_an_id_is_given_once(capsys):
    options = group()
    first = opt.qemu_opts_parse(options, "id=a,x=1", None)
    assert opt.qemu_opts_parse(options, "x=2,id=a", None) is None
    assert capsys.readouterr().err == 'tried to create id "a" twice for "t"\n'
    assert opt.qemu_opts_find(options, "a") is first
    assert opt.qemu_opts_create(options, "a", 0) is first


def test_a_list_without_descriptions_is_checked_late(capsys):
    opts = opt.qemu_opts_parse(group(), "vlan=3,x=1", None)
    desc = group(vlan="NUMBER").desc
    assert opt.qemu_opts_validate(opts, desc) == -1
    assert capsys.readouterr().err == 'option "x" is not valid for t\n'
    assert opt.qemu_opt_get_number(opts, "vlan", 0) == 3


def test_walking_stops_at_a_failure_if_asked():
    options = group()
    for name in "abc":
        opt.qemu_opts_create(options, name, 1)
    seen = []
    assert opt.qemu_opts_foreach(options, lambda o, _: seen.append(o.id) or int(o.id == "b"), None, 1) == 1
    assert seen == ["a", "b"]
    assert opt.qemu_opts_foreach(options, lambda o, _: seen.append(o.id) or 0, None, 0) == 0
    assert seen == ["a", "b", "a", "b", "c"]


NAMES = st.from_regex(r"[a-mo-z][a-z]{0,5}", fullmatch=True).filter(lambda name: name != "id")
VALUES = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=20)


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=5))
def test_any_values_come_through_with_their_commas_doubled(wanted):
    text = ",".join(f"{name}={value.replace(',', ',,')}" for name, value in wanted)
    if "id=" in text:
        return
    assert pairs(opt.qemu_opts_parse(group(), text, None)) == wanted
