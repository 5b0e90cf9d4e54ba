from datetime import UTC, datetime, timedelta

import pytest

from msnode.services.clock import WallClock

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Clocks:
    """Both clocks of a machine; `set_by` sets the wall clock."""

    def __init__(self):
        self.steady_s, self.offset_s, self.delay_s = 1000.0, 0.0, 0.0

    def pass_time(self, seconds):
        self.steady_s += seconds

    def set_by(self, seconds):
        self.offset_s += seconds

    def wall(self):
        self.pass_time(self.delay_s)
        return NOON + timedelta(seconds=self.steady_s + self.offset_s)

    def steady(self):
        return self.steady_s


@pytest.fixture
def clocks():
    return Clocks()


@pytest.mark.parametrize("step_s", [-3600, -3, 3, 86400])
def test_a_step_is_told_once(clocks, step_s):
    clock = WallClock(clocks.wall, clocks.steady)
    assert clock.read().step_s == 0
    clocks.pass_time(0.5)
    clocks.set_by(step_s)
    reading = clock.read()
    assert (reading.step_s, reading.now) == (pytest.approx(step_s), clocks.wall())
    clocks.pass_time(0.5)
    assert clock.read().step_s == 0


def test_a_clock_that_is_slewed_makes_no_step(clocks):
    clock = WallClock(clocks.wall, clocks.steady)
    for _ in range(100):
        clocks.pass_time(600)
        clocks.set_by(0.3)
        assert clock.read().step_s == 0


def test_a_delay_is_not_taken_for_a_step_and_hides_none(clocks):
    clock = WallClock(clocks.wall, clocks.steady)
    clock.read()
    clocks.delay_s = 30
    assert clock.read() is None
    clocks.set_by(3600)
    assert clock.read() is None
    clocks.delay_s = 0
    assert clock.read().step_s == pytest.approx(3600)
