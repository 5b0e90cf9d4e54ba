from datetime import datetime, time

import pytest
from pydicom.dataset import Dataset

from msnode.routing.rules import (
    CallingAe,
    Decision,
    Geometry,
    LocalTime,
    Missed,
    Rule,
    Shape,
    StudyFacts,
    Tag,
    decide,
)

SAGITTAL = Geometry("sagittal", "3d", 176, 1.0)


def local(text):
    return datetime.fromisoformat(text).astimezone()


FRIDAY_23 = local("2026-11-20T23:00")


def header(**values):
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


PLAIN = header(Modality="MR", ImageType=["ORIGINAL", "PRIMARY"], StationName=None)
STAT = header(RequestedProcedurePriority="STAT ")


def study(aes=("ER", "PACS"), at=FRIDAY_23, headers=(PLAIN, STAT), geometry=SAGITTAL):
    return StudyFacts(frozenset(aes), at, lambda: headers, lambda: geometry)


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        (CallingAe(("ER",)), ""),
        (CallingAe(("MR1", "PACS")), ""),
        (CallingAe(("MR1", "MR2")), 'it was sent by ER, PACS, not by "MR1" or "MR2"'),
        (Tag("RequestedProcedurePriority", ("stat",)), ""),
        (Tag("00401003", ("HIGH", " Stat")), ""),
        (Tag("ImageType", ("primary",)), ""),
        (Tag("RequestedProcedurePriority", ("HIGH",)), 'in no series is RequestedProcedurePriority "HIGH"'),
        (Tag("StationName", ("",)), "no series has a value for StationName"),
        (Tag("NoSuchKeyword", ("x",)), "no series has a value for NoSuchKeyword"),
        (Shape(), ""),
        (Shape("sagittal", "3d", 176, 1.0, 1.0), ""),
        (Shape(plane="axial"), "of the series that would be read: sagittal, not axial"),
        (Shape(acquisition="2d"), "of the series that would be read: 3d, not 2d"),
        (Shape(min_slices=177), "of the series that would be read: 176 slices, fewer than 177"),
        (
            Shape(min_slice_distance_mm=3),
            "of the series that would be read: slices 1.00 mm apart, less than 3",
        ),
        (
            Shape(max_slice_distance_mm=0.9),
            "of the series that would be read: slices 1.00 mm apart, not within 0.9",
        ),
    ],
)
def test_a_condition_says_why_it_does_not_hold(condition, why):
    assert condition.mismatch(study()) == why


def test_nothing_known_satisfies_nothing():
    nothing = study(aes=(), headers=(), geometry=None)
    assert "not known" in CallingAe(("ER",)).mismatch(nothing)
    assert Tag("Modality", ("MR",)).mismatch(nothing)
    assert "no series would be read" in Shape().mismatch(nothing)
    alone = study(geometry=Geometry("axial", "2d", 1, None))
    assert "slices alone" in Shape(max_slice_distance_mm=9).mismatch(alone)


def test_a_reason_holds_no_value_of_the_study():
    named = study(headers=(header(PatientName="Doe^Jane"),))
    assert "Doe" not in Tag("PatientName", ("Roe^Richard",)).mismatch(named)


NIGHT = (time(22), time(6))
FRI = frozenset({4})


@pytest.mark.parametrize(
    ("window", "at", "holds"),
    [
        (LocalTime((time(8), time(17))), "2026-11-20T08:00", True),
        (LocalTime((time(8), time(17))), "2026-11-20T16:59", True),
        (LocalTime((time(8), time(17))), "2026-11-20T17:00", False),
        (LocalTime((time(8), time(17))), "2026-11-20T07:59", False),
        (LocalTime(NIGHT), "2026-11-20T22:00", True),
        (LocalTime(NIGHT), "2026-11-20T05:59", True),
        (LocalTime(NIGHT), "2026-11-20T06:00", False),
        (LocalTime((time(18), time(0))), "2026-11-20T23:59", True),
        (LocalTime((time(18), time(0))), "2026-11-20T00:00", False),
        (LocalTime(weekdays=FRI), "2026-11-20T03:00", True),
        (LocalTime(weekdays=FRI), "2026-11-21T03:00", False),
        # a night belongs to the day on which it begins
        (LocalTime(NIGHT, FRI), "2026-11-20T23:00", True),
        (LocalTime(NIGHT, FRI), "2026-11-21T05:00", True),
        (LocalTime(NIGHT, FRI), "2026-11-20T05:00", False),
        (LocalTime(NIGHT, FRI), "2026-11-21T23:00", False),
        (LocalTime(NIGHT, frozenset({6})), "2026-11-23T05:00", True),
    ],
)
def test_hours_and_days(window, at, holds):
    assert (window.mismatch(study(at=local(at))) == "") is holds


def test_a_time_outside_is_said():
    assert LocalTime(NIGHT).mismatch(study(at=local("2026-11-20T12:00"))) == (
        "it was complete at 12:00, outside 22:00-06:00"
    )
    assert LocalTime(weekdays=frozenset({0, 5})).mismatch(study()) == (
        'it was complete on fri, not on "mon" or "sat"'
    )


def test_the_first_rule_of_which_every_condition_holds_decides():
    rules = (
        Rule("nobody", (CallingAe(("NOBODY",)),)),
        Rule("emergency by day", (CallingAe(("ER",)), LocalTime((time(8), time(17))))),
        Rule("emergency", (CallingAe(("ER",)), Tag("Modality", ("MR",))), urgent=True),
        Rule("all"),
    )
    decision = decide(rules, study())
    assert decision.rule == rules[2]
    assert decision.missed == (
        Missed("nobody", 'it was sent by ER, PACS, not by "NOBODY"'),
        Missed("emergency by day", "it was complete at 23:00, outside 08:00-17:00"),
    )
    assert decide(rules, study(aes=("MR1",))).rule == rules[3]
    assert decide(rules[:1], study()) == Decision(None, decision.missed[:1])
    assert decide((), study()) == Decision()


def test_what_costs_is_asked_for_only_where_it_decides():
    def unexpected():
        raise AssertionError

    facts = StudyFacts(frozenset({"MR1"}), FRIDAY_23, unexpected, unexpected)
    expensive = Rule("x", (CallingAe(("ER",)), Tag("Modality", ("MR",)), Shape()))
    assert decide((expensive,), facts).rule is None
