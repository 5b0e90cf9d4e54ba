import pytest
from pydicom.dataset import Dataset

from msnode.series.urgency import UrgencyRule, is_urgent


def header(**values):
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


PLAIN = header(Modality="MR")
STAT = header(RequestedProcedurePriority="STAT ")


@pytest.mark.parametrize(
    ("rule", "urgent"),
    [
        (UrgencyRule(calling_ae="ER"), True),
        (UrgencyRule(calling_ae="MR1"), False),
        (UrgencyRule(tag="RequestedProcedurePriority", value="stat"), True),
        (UrgencyRule(tag="00401003", value="STAT"), True),
        (UrgencyRule(tag="RequestedProcedurePriority", value="HIGH"), False),
        (UrgencyRule(tag="StationName", value="STAT"), False),
        (UrgencyRule(calling_ae="ER", tag="Modality", value="MR"), True),
        (UrgencyRule(calling_ae="ER", tag="Modality", value="CT"), False),
        (UrgencyRule(calling_ae="MR1", tag="Modality", value="MR"), False),
        (UrgencyRule(tag="NoSuchKeyword", value="x"), False),
    ],
)
def test_every_condition_of_a_rule_has_to_hold(rule, urgent):
    assert is_urgent([rule], {"ER", "PACS"}, [PLAIN, STAT]) is urgent


def test_one_rule_of_several_is_enough():
    rules = [UrgencyRule(calling_ae="NOBODY"), UrgencyRule(calling_ae="ER")]
    assert is_urgent(rules, {"ER"}, [])
    assert not is_urgent([], {"ER"}, [STAT])


def test_of_several_values_any_one_counts():
    assert is_urgent(
        [UrgencyRule(tag="ImageType", value="primary")], [], [header(ImageType=["ORIGINAL", "PRIMARY"])]
    )


def test_an_absent_or_empty_value_satisfies_nothing():
    assert not is_urgent([UrgencyRule(tag="StationName", value="")], [], [PLAIN, header(StationName=None)])
