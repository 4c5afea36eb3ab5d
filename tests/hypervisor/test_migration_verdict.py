"""Source and destination agree on which of them runs; wherever it breaks off, not both."""

import socket
import threading

import pytest

from hypervisor import migration_verdict as verdict


@pytest.fixture
def ends(monkeypatch):
    """The source's end of a connection, and the destination's."""
    monkeypatch.setattr(verdict, "WAIT", 0.5)
    source, destination = socket.socketpair()
    with source, destination:
        yield source, destination


def at_once(one, other):
    """What two functions return that wait for each other."""
    found = []
    beside = threading.Thread(target=lambda: found.append(other()))
    beside.start()
    ours = one()
    beside.join(10)
    return ours, found[0]


def test_the_machine_runs_there_when_all_came_as_it_was_sent(ends):
    source, destination = ends
    answers = at_once(
        lambda: verdict.hand_over(source, 0xCAFE), lambda: verdict.take_over(destination, 0xCAFE)
    )
    assert answers == (("", ""), (True, ""))


def test_what_was_changed_on_its_way_runs_nowhere_but_here(ends):
    source, destination = ends
    (why, remark), taken = at_once(
        lambda: verdict.hand_over(source, 1), lambda: verdict.take_over(destination, 2)
    )
    assert "changed on its way" in why and not remark and taken == (False, "")


def test_a_real_source_closes_behind_the_stream(ends):
    source, destination = ends
    source.close()
    assert verdict.take_over(destination, 1) == (True, "")


def test_a_real_destination_closes_without_a_word(ends):
    source, destination = ends
    destination.close()
    why, remark = verdict.hand_over(source, 1)
    assert why == "" and "see whether it runs there" in remark


@pytest.mark.parametrize("goes", [True, False], ids=["goes", "is silent"])
def test_a_source_that_says_no_more_leaves_the_machine_standing(ends, goes):
    source, destination = ends

    def hear():
        assert source.recv(100) == b"loaded 00000001\n"
        if goes:
            source.close()

    good, why = at_once(lambda: verdict.take_over(destination, 1), hear)[0]
    assert good and "the source went" in why


def test_bytes_that_are_no_word_are_no_consent(ends):
    source, destination = ends
    source.sendall(b"more of the stream")
    assert at_once(lambda: verdict.take_over(destination, 1), lambda: source.shutdown(socket.SHUT_WR))[0] == (
        False,
        "",
    )


def test_a_silent_destination_is_told_of(ends):
    source, _ = ends
    why, remark = verdict.hand_over(source, 1)
    assert why == "" and "has not answered" in remark


def test_a_refusal_is_heard_while_sending_and_behind(ends):
    source, destination = ends
    assert verdict.refusal_so_far(source) == ""
    beside = threading.Thread(target=verdict.refuse, args=(destination, "no such\ndevice"))
    beside.start()
    while not verdict.refusal_so_far(source):
        pass
    assert verdict.refusal_so_far(source) == "no such device"
    assert verdict.hand_over(source, 1) == ("the destination refused: no such device", "")
    source.close()
    beside.join(10)


def test_a_connection_that_breaks_leaves_the_machine_here(ends):
    source, destination = ends
    source.sendall(b"unread")
    destination.close()
    why, remark = verdict.hand_over(source, 1)
    assert "ended before it had loaded all" in why and not remark
