import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from msnode.domain.arrivals import Arrival
from msnode.errors import OutOfResources
from msnode.receive.group_commit import GroupCommit
from msnode.receive.ledger import MemoryLedger
from support.peers import wait_until


def arrival(number: int, content: str = "") -> Arrival:
    return Arrival(
        digest=f"{number}{content}".encode().hex().rjust(64, "0"), sop_class_uid="1.2",
        sop_instance_uid=f"1.2.3.{number}", series_instance_uid="1.2.1", study_instance_uid="1.1",
        transfer_syntax_uid="1.2", modality="MR", patient_key=("", "1"), slice_position_mm=None,
        frame_count=1, own=False, association_id="a1", received_at=datetime.now(UTC),
    )  # fmt: skip


class SlowLedger(MemoryLedger):
    """Its first call waits until the test lets it go on."""

    def __init__(self, *errors: BaseException | None) -> None:
        super().__init__()
        self.calls: list[list[str]] = []
        self.called = threading.Event()
        self.go_on = threading.Event()
        self._errors = list(errors)

    def add(self, *arrivals: Arrival, keep_bytes: Callable[[Arrival], None]):
        self.calls.append([a.sop_instance_uid for a in arrivals])
        self.called.set()
        assert self.go_on.wait(20)
        if self._errors and (error := self._errors.pop(0)):
            raise error
        return super().add(*arrivals, keep_bytes=keep_bytes)


def run(ledger: SlowLedger, *arrivals: Arrival) -> list[object]:
    """The first alone; the others while it is being recorded; what each call returned or raised."""
    group_commit = GroupCommit(ledger)

    def add(one: Arrival) -> object:
        try:
            return group_commit.add(one, lambda: None)
        except (OutOfResources, ZeroDivisionError) as error:
            return type(error)

    with ThreadPoolExecutor(len(arrivals)) as pool:
        first = pool.submit(add, arrivals[0])
        assert ledger.called.wait(20)
        others = [pool.submit(add, one) for one in arrivals[1:]]
        wait_until(lambda: len(group_commit._waiting) == len(others), what="the others wait")
        ledger.go_on.set()
        return [each.result(timeout=20) for each in (first, *others)]


def test_what_comes_meanwhile_is_recorded_together() -> None:
    ledger = SlowLedger()
    answers = run(ledger, *(arrival(n) for n in range(10)))
    assert answers == [None] * 10
    assert [len(call) for call in ledger.calls] == [1, 9]
    assert len(ledger.arrivals) == 10


def test_one_after_the_other_each_is_recorded_at_once() -> None:
    ledger = MemoryLedger()
    group_commit = GroupCommit(ledger)
    assert [group_commit.add(arrival(n), lambda: None) for n in range(3)] == [None] * 3


def test_two_versions_of_an_instance_are_never_in_one_batch() -> None:
    ledger = SlowLedger()
    first, second = arrival(1, "first"), arrival(1, "second")
    answers = run(ledger, arrival(0), first, second)
    assert sorted(map(len, ledger.calls)) == [1, 1, 1]
    assert set(answers) == {None, *({first.digest, second.digest} & set(answers))}
    assert len(ledger.arrivals) == 2


def test_what_could_not_be_recorded_nobody_thinks_recorded() -> None:
    ledger = SlowLedger(None, OutOfResources("full"))
    answers = run(ledger, *(arrival(n) for n in range(5)))
    assert answers == [None] + [OutOfResources] * 4
    assert len(ledger.arrivals) == 1


def test_a_mistake_met_by_one_does_not_keep_the_others_from_being_recorded() -> None:
    ledger = SlowLedger(None, ZeroDivisionError())
    answers = run(ledger, *(arrival(n) for n in range(5)))
    assert sorted(answers, key=str) == [ZeroDivisionError, None, None, None, None]
    assert len(ledger.arrivals) == 4


@pytest.mark.parametrize("threads", [2, 16])
def test_many_threads_record_everything_once(threads: int) -> None:
    ledger = MemoryLedger()
    group_commit = GroupCommit(ledger)

    def bring(thread: int) -> None:
        for number in range(50):
            assert group_commit.add(arrival(1000 * thread + number), lambda: None) is None

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(bring, range(threads)))
    assert len({a.sop_instance_uid for a in ledger.arrivals}) == len(ledger.arrivals) == 50 * threads
