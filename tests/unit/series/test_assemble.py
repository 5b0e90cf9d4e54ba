from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msnode.domain.arrivals import SeriesArrivals, StudyArrivals
from msnode.series.assemble import Timers, Verdict, assess, evenly_spaced

START = datetime(2024, 1, 2, 10, 0, tzinfo=UTC)
TIMERS = Timers()
EVEN = tuple(6.0 * k for k in range(20))
GAP = tuple(6.0 * k for k in range(20) if k != 9)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def series(
    uid: str = "1.2.1", *, last: float = 0, positions=EVEN, interrupted: bool = False
) -> SeriesArrivals:
    return SeriesArrivals(uid, positions, max(1, len(positions)), at(last), interrupted)


def study(*members: SeriesArrivals, open_associations: int = 0, revision: int = 0) -> StudyArrivals:
    return StudyArrivals("1.2", 7, revision, members or (series(),), open_associations)


def moment_of_completion(one: StudyArrivals) -> float:
    """Follow `next_look_at` until the study is complete."""
    now = at(0)
    for _ in range(20):
        verdict = assess(one, now, TIMERS)
        if verdict.complete:
            assert verdict.next_look_at is None
            assert all(s.complete for s in verdict.series)
            return (now - START).total_seconds()
        assert verdict.next_look_at is not None
        assert verdict.next_look_at > now
        now = verdict.next_look_at
    pytest.fail("never complete")


@pytest.mark.parametrize(
    ("one", "seconds"),
    [
        (study(), 5),
        (study(open_associations=1), 60),
        (study(series(positions=GAP)), 60),
        (study(series(positions=())), 5),
        (study(series(), series("1.2.2", last=30)), 35),
        (study(series(), series("1.2.2", last=30, positions=GAP)), 90),
        (study(revision=1), 120),
        (study(revision=2, open_associations=1), 120),
    ],
)
def test_when_a_study_is_complete(one: StudyArrivals, seconds: float) -> None:
    assert moment_of_completion(one) == seconds


def test_series_has_its_own_timer() -> None:
    one = study(series(), series("1.2.2", last=20), open_associations=1)
    assert [s.complete for s in assess(one, at(25), TIMERS).series] == [True, False]
    assert [s.complete for s in assess(one, at(31), TIMERS).series] == [True, True]
    assert not assess(one, at(31), TIMERS).complete


@pytest.mark.parametrize("seconds", [5, 60, 599])
def test_an_interrupted_series_waits_for_its_sender(seconds: float) -> None:
    verdict = assess(study(series(), series("1.2.2", interrupted=True)), at(seconds), TIMERS)
    assert not verdict.complete
    assert verdict.held
    assert verdict.next_look_at == at(600)
    assert "interrupted" in verdict.reason
    assert [s.complete for s in verdict.series][1] is False


def test_what_nobody_sends_again_is_read_as_it_is() -> None:
    verdict = assess(study(series(), series("1.2.2", interrupted=True)), at(600), TIMERS)
    assert verdict.complete
    assert "cut off" in verdict.reason
    assert "600 s" in verdict.reason


def test_the_sender_has_its_time_from_the_moment_that_the_node_is_back() -> None:
    cut_off = replace(series(interrupted=True), interrupted_at=at(5000))
    assert not assess(study(cut_off), at(5599), TIMERS).complete
    assert assess(study(cut_off), at(5600), TIMERS).complete


def test_completed_again_on_a_released_association() -> None:
    assert not assess(study(series(positions=EVEN[:7], interrupted=True)), at(500), TIMERS).complete
    assert assess(study(series(last=995)), at(1000), TIMERS).complete


def test_release_never_lengthens_a_shorter_timer() -> None:
    timers = Timers(series_quiet_s=2, study_quiet_s=3, after_release_s=5)
    assert assess(study(), at(3), timers).complete


def test_reason_says_which_rule_decided() -> None:
    assert "after release" in assess(study(), at(6), TIMERS).reason
    assert "waiting for 60 s" in assess(study(open_associations=1), at(6), TIMERS).reason
    assert "late instances" in assess(study(revision=1), at(6), TIMERS).reason


@pytest.mark.parametrize(
    ("positions", "even"),
    [
        ((), True),
        ((3.0,), True),
        ((3.0, 90.0), True),
        (EVEN, True),
        (EVEN[::-1], True),
        (EVEN + EVEN, True),
        (tuple(p + 0.05 * (-1) ** k for k, p in enumerate(EVEN)), True),
        (GAP, False),
        (EVEN[:5] + EVEN[6:8], False),
        ((0.0, 6.0, 18.0), False),
    ],
)
def test_evenly_spaced(positions: tuple[float, ...], even: bool) -> None:  # noqa: FBT001 - a table's column
    assert evenly_spaced(positions) is even


@given(
    lasts=st.lists(st.floats(0, 300), min_size=1, max_size=4),
    gaps=st.lists(st.booleans(), min_size=4, max_size=4),
    open_associations=st.integers(0, 2),
    revision=st.integers(0, 2),
    now=st.floats(300, 1000),
    later=st.floats(0, 1000),
)
def test_time_alone_only_completes(*, lasts, gaps, open_associations, revision, now, later) -> None:
    members = [
        series(f"1.2.{k}", last=last, positions=GAP if gaps[k] else EVEN) for k, last in enumerate(lasts)
    ]
    one = study(*members, open_associations=open_associations, revision=revision)
    before, after = assess(one, at(now), TIMERS), assess(one, at(now + later), TIMERS)
    assert after.complete or not before.complete
    quiet = now - max(lasts)
    if before.complete:
        assert quiet >= TIMERS.after_release_s - 1e-3
        assert quiet >= TIMERS.study_quiet_s - 1e-3 or not (open_associations or any(gaps[: len(lasts)]))
    longest = max(TIMERS.study_quiet_s, TIMERS.revision_quiet_s)
    assert assess(one, at(max(lasts) + longest + 1), TIMERS).complete
    assert isinstance(before, Verdict)
