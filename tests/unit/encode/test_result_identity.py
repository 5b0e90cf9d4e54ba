from datetime import UTC, datetime, timedelta, timezone

import pytest

from msnode.dicom.uids import derive_uid
from msnode.encode import ResultIdentity
from msnode.encode.kinds import KIND_NUMBERS
from support.dicom_files import change_all, flair_series
from support.readings import MODEL, provenance, read

SMALL = {"slices": 3, "rows": 16, "columns": 16}


def identity(made_by=None, **header):
    """The identity of a reading whose header has these attributes; pixels and geometry always the same."""
    folder = identity.folder / derive_uid(*sorted(map(str, header.items())))
    paths = flair_series(folder, **SMALL)
    change_all(paths, **header)
    return ResultIdentity.of_reading(read(paths, 0).source, made_by or provenance())


@pytest.fixture(autouse=True)
def _folder(tmp_path):
    identity.folder = tmp_path


def test_parts_of_a_uid_cannot_run_together():
    assert derive_uid("ab", "c") != derive_uid("a", "bc")
    assert derive_uid("a") == derive_uid("a")
    assert len(derive_uid("a")) <= 64


def test_one_reading_has_one_set_of_different_uids():
    one, two = identity(), identity()
    uids = {one.instance_uid(kind, n) for kind in KIND_NUMBERS for n in (1, 2)}
    uids |= {one.series_uid(kind) for kind in KIND_NUMBERS} | {one.uid("dimension"), one.device_uid}
    assert len(uids) == 3 * len(KIND_NUMBERS) + 2
    assert one.instance_uid("sr") == two.instance_uid("sr")


def test_the_clock_has_no_part_in_uids():
    later = provenance(started_at=datetime(2031, 1, 1, tzinfo=UTC))
    assert identity(later).instance_uid("sr") == identity().instance_uid("sr")


@pytest.mark.parametrize(
    "change",
    [
        {"revision": 1},
        {"runtime": "torch-cuda-f16"},
        {"msnode_version": "0.2.0"},
        {"settings_digest": "ee" * 32},
        {"model": None},
        {"model": type(MODEL)("flair-unet", "1.2.3", "ff" * 32)},
    ],
)
def test_uids_depend_on_everything_that_makes_the_result(change):
    assert identity(provenance(**change)).instance_uid("sr") != identity().instance_uid("sr")


@pytest.mark.parametrize(
    "header",
    [
        {"PatientID": "PAT002"},
        {"PatientName": "Roe^Jane"},
        {"AccessionNumber": "ACC0002"},
        {"PixelSpacing": ["0.8", "0.8"]},
        {"RescaleIntercept": "7", "RescaleSlope": "1"},
    ],
)
def test_uids_depend_on_identity_geometry_and_pixels(header):
    assert identity(**header).instance_uid("sr") != identity().instance_uid("sr")


def test_series_numbers_follow_revision_and_kind():
    assert [identity().series_number(kind) for kind in ("seg", "sr", "overlay")] == [9801, 9802, 9803]
    assert identity(provenance(revision=2)).series_number("seg") == 9821


def test_series_numbers_move_past_those_of_the_study():
    known = provenance(known_series_numbers=frozenset({301, 9802, 9813}))
    assert [identity(known).series_number(kind) for kind in ("seg", "sr", "overlay")] == [9821, 9822, 9823]


def test_a_revision_says_what_it_replaces():
    assert identity().series_description("seg") == "MS AI SEG"
    assert identity(provenance(revision=3)).series_description("sr") == "MS AI REPORT rev 3, replaces rev 2"


def test_a_long_description_keeps_its_revision_within_64_characters():
    made = ResultIdentity("key", identity().header, provenance(revision=1), {"seg": "x" * 70})
    assert len(made.series_description("seg")) == 64
    assert made.series_description("seg").endswith("x rev 1, replaces rev 0")


def test_times_are_in_the_zone_that_the_source_states():
    assert identity(TimezoneOffsetFromUTC="+0930").started_at.strftime("%d %H%M") == "03 1335"
    assert identity(TimezoneOffsetFromUTC="-0500").started_at.strftime("%d %H%M") == "02 2305"
    assert identity().started_at.utcoffset() == timedelta(0)
    local = provenance(started_at=datetime(2024, 1, 3, 6, 0, tzinfo=timezone(timedelta(hours=2))))
    assert identity(local).started_at.strftime("%H%M") == "0600"
