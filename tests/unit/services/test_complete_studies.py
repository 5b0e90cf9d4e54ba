"""When studies are complete while somebody sets the clock, on a record."""

from datetime import timedelta
from types import SimpleNamespace

import pytest

from msnode.record.job import JobState
from msnode.routing.rules import Decision
from msnode.series.assemble import Timers
from msnode.services.clock import ClockReading
from msnode.services.complete_studies import StudyCompletion

QUIET_S = 60


class Completing:
    """A receiver's completion; `pass_time` looks twice a second, `set_by` sets the clock."""

    def __init__(self, record):
        self.record, self.seconds, self.step_s = record, 0.0, 0.0
        self.completion = self.restarted()

    def restarted(self):
        timers = Timers(study_quiet_s=QUIET_S, after_release_s=QUIET_S, interrupted_quiet_s=QUIET_S)
        router = SimpleNamespace(decide=lambda *_: Decision())
        return StudyCompletion(
            timers, 1800, self.record.database, router, self.record.arrivals,
            engine=None, dispatch=lambda *_: None, clock=self,
        )  # fmt: skip

    def read(self):
        step_s, self.step_s = self.step_s, 0.0
        return ClockReading(self.record.at(self.seconds), step_s)

    def set_by(self, seconds):
        self.seconds += seconds
        self.step_s = seconds

    def pass_time(self, seconds):
        for _ in range(int(2 * seconds)):
            self.seconds += 0.5
            self.completion.queue_complete()

    def state(self):
        return self.record.job().state


@pytest.fixture
def completing(record):
    record.open()
    record.add(1)
    return Completing(record)


@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize("step_s", [-86400, -3600, -30, 0, 30, 3600, 86400])
def test_a_step_closes_no_study_early_and_delays_none_by_more_than_a_quiet_time(
    completing, record, step_s, released
):
    completing.pass_time(40)
    record.release(seconds=0) if released else record.abort(seconds=0)
    completing.set_by(step_s)
    completing.pass_time(QUIET_S - 40 - 1)
    assert completing.state() == JobState.RECEIVING
    completing.pass_time(QUIET_S + 2)
    assert completing.state() == JobState.QUEUED


def test_what_comes_after_the_step_begins_its_own_timer(completing, record):
    completing.set_by(-3600)
    completing.pass_time(30)
    record.add(2, seconds=completing.seconds)
    completing.pass_time(QUIET_S - 1)
    assert completing.state() == JobState.RECEIVING
    completing.pass_time(2)
    assert completing.state() == JobState.QUEUED


def test_a_clock_set_back_while_no_receiver_ran_delays_by_one_quiet_time(completing):
    completing.seconds -= 86400
    completing.completion = completing.restarted()
    completing.pass_time(QUIET_S + 1)
    assert completing.state() == JobState.QUEUED


def test_an_instance_that_is_recorded_while_studies_are_looked_at_is_not_old(completing, record):
    completing.set_by(3600)
    completing.pass_time(1)
    record.add(2, seconds=completing.seconds + 0.6)
    completing.pass_time(QUIET_S - 1)
    assert completing.state() == JobState.RECEIVING


def test_the_servers_clock_counts_for_all_machines(record, monkeypatch):
    """A machine whose clock is an hour ahead, and one whose clock is right."""
    hour = timedelta(hours=1)
    for module in ("arrivals", "database"):
        monkeypatch.setattr(f"msnode.record.{module}.clock_skew", lambda _tx: -hour)
    record.open()
    record.add(1, seconds=3600)
    record.release(seconds=3601)
    completing = Completing(record)
    completing.pass_time(QUIET_S - 1)
    assert completing.state() == JobState.RECEIVING
    completing.pass_time(3)
    assert completing.state() == JobState.QUEUED
