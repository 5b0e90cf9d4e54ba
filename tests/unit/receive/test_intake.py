import threading
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.association import Association

from msnode.receive.held import Disk, Memory
from msnode.receive.intake import Intake
from msnode.receive.request import Answer


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    association = Association(AE(), "acceptor")
    return Intake(association, Memory(1000), lambda _association, _request: Answer(0), Disk(tmp_path, 0))


def test_a_thread_that_looks_is_woken_up(intake: Intake) -> None:
    assert intake.get_msg() == (None, None)
    intake.msg_queue.put((1, "message"))
    assert intake.get_msg() == (1, "message")


def test_a_peer_that_does_not_wait_is_not_read_any_further(intake: Intake) -> None:
    for number in (1, 3):
        intake.msg_queue.put((number, "message"))
    third = threading.Thread(target=intake.msg_queue.put, args=((5, "message"),))
    third.start()
    third.join(0.05)
    assert third.is_alive()
    assert intake.get_msg() == (1, "message")
    third.join(60)
    assert [intake.get_msg()[0] for _ in range(2)] == [3, 5]


def test_an_association_that_was_ended_takes_no_more(intake: Intake) -> None:
    intake.assoc._kill = True
    intake.msg_queue.put((1, "message"))
    assert intake.msg_queue.empty()


@pytest.mark.parametrize(
    "body",
    [
        b"\0\0\0",  # no room for a length
        b"\0\0\0\1\1\2",  # too short to be a value
        b"\0\0\1\0\1\0abcd",  # longer than its PDU
        b"\0\0\0\6\1\2abcd",  # data that no command announced
    ],
)
def test_what_is_not_a_presentation_data_value_is_an_error(intake: Intake, body: bytes) -> None:
    with pytest.raises(ValueError, match="data"):
        intake._take_values(memoryview(body))
