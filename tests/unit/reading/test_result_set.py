import json
import tarfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msnode.domain.findings import Lesion, LesionMap
from msnode.domain.imaging import Grid, Selection
from msnode.domain.provenance import Output
from msnode.errors import StoredBytesChanged
from msnode.reading.outcome import Reading
from msnode.reading.result_set import read_former, read_result, sha256_of, write_result_set
from msnode.reading.summary import ReadingStatus
from msnode.segment.scope import IN_SCOPE, WARNING, ScopeVerdict
from support.dicom_files import flair_series
from support.readings import provenance, read

NODE_0_2_0 = Path(__file__).parents[2] / "integration/data/node-0.2.0.tar.xz"

FLOATS = st.floats(allow_nan=False)
LESIONS = st.lists(
    st.builds(
        Lesion,
        label=st.integers(1, 2**31),
        voxel_count=st.integers(1, 2**40),
        volume_mm3=FLOATS,
        centroid_lps_mm=st.tuples(FLOATS, FLOATS, FLOATS),
        longest_axial_mm=FLOATS,
        mean_probability=FLOATS,
        spread=FLOATS,
        confidence=st.none() | FLOATS,
    ),
    max_size=4,
)


def reading_of(lesion_map, **changes):
    empty = Selection(series={}, passed_over=(), reason="")
    facts = {"lesion_map": lesion_map, "scope": ScopeVerdict(IN_SCOPE)}
    return Reading(ReadingStatus.COMPLETED, "", empty, provenance(), **(facts | changes))


def written(folder, reading):
    write_result_set(reading, folder)
    return read_former(folder, 3)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return read(
        flair_series(tmp_path_factory.mktemp("in"), slices=6, rows=40, columns=48), 3, [0.1 + 0.2, None]
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=LESIONS)
def test_lesions_come_back_bit_for_bit(found, tmp_path):
    grid = Grid((1, 2, 3), np.eye(4) / 3)
    labels = np.arange(6, dtype=np.int32).reshape(1, 2, 3)
    former = written(tmp_path, reading_of(LesionMap(labels, grid, tuple(found))))
    again = former.load_found().lesion_map
    # repr tells floats apart to the last bit, and 0.0 from -0.0
    assert [repr(lesion) for lesion in again.lesions] == [repr(lesion) for lesion in found]
    assert (again.labels.dtype, again.labels.tobytes()) == (labels.dtype, labels.tobytes())
    assert (again.grid.shape, again.grid.affine.tobytes()) == (grid.shape, grid.affine.tobytes())


def test_every_attribute_of_a_lesion_is_stored(one, tmp_path):
    write_result_set(reading_of(one.lesion_map), tmp_path)
    with np.load(tmp_path / "lesion_map.npz") as stored:
        assert set(stored["lesions"].dtype.names) == {f.name for f in fields(Lesion)}


def test_a_former_reading_tells_what_it_was_made_of(one, tmp_path):
    verdict = ScopeVerdict(WARNING, ("Outside.",))
    findings = replace(one.findings, limitations=("Outside.", "Low quality."), brain_volume_ml=1234.5)
    probability = np.arange(one.lesion_map.labels.size, dtype=np.uint8).reshape(one.lesion_map.labels.shape)
    reading = reading_of(
        one.lesion_map, source=one.source, identity_digest="id", scope=verdict, findings=findings,
        probability=probability,
    )  # fmt: skip
    former = written(tmp_path, reading)
    assert (former.revision, former.status, former.outside_scope, former.gone) == (3, "completed", False, "")
    assert (former.image_digest, former.identity_digest) == (one.source.image_digest, "id")
    assert former.made_with(provenance())
    assert not former.made_with(provenance(settings_digest="ee" * 32))
    assert not former.made_with(provenance(model=replace(provenance().model, sha256="ee" * 32)))
    assert not former.made_with(provenance(model=None))
    found = former.load_found()
    assert (found.scope, found.remarks) == (verdict, ("Outside.", "Low quality."))
    assert (found.brain_volume_ml, found.runtime) == (1234.5, "openvino-cpu-f32")
    assert np.array_equal(found.probability, probability)


def test_a_set_of_the_version_before_has_no_image_to_compare(tmp_path):
    with tarfile.open(NODE_0_2_0) as archive:
        archive.extractall(tmp_path, filter="data")
    former = read_former(tmp_path / "data/store/sets/job-1-0", 0)
    assert former.status == ReadingStatus.REJECTED
    assert (former.image_digest, former.identity_digest) == (None, None)
    assert former.selection_digest


def test_a_set_without_scope_is_one_of_the_first_version(one, tmp_path):
    write_result_set(reading_of(one.lesion_map, source=one.source), tmp_path)
    result = read_result(tmp_path)
    for key in ("scope", "remarks", "image_digest", "identity_digest"):
        del result[key]
    (tmp_path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    assert read_former(tmp_path, 0).image_digest is None


def test_lesions_of_the_version_before_get_their_axial_diameter(tmp_path):
    sagittal = read(flair_series(tmp_path / "in", slices=6, rows=40, columns=48, orientation="sagittal"), 3)
    folder = tmp_path / "set"
    folder.mkdir()
    written(folder, reading_of(sagittal.lesion_map, source=sagittal.source))
    result = read_result(folder)
    del result["arrays"]
    (folder / "result.json").write_text(json.dumps(result))
    with np.load(folder / "lesion_map.npz") as stored:
        content = dict(stored)
    names = content["lesions"].dtype.names
    old = ["longest_in_plane_mm" if n == "longest_axial_mm" else n for n in names]
    content["lesions"].dtype.names = tuple(old)
    content["lesions"]["longest_in_plane_mm"] = 99.0
    np.savez(folder / "lesion_map.npz", **content)
    again = read_former(folder, 3).load_found().lesion_map.lesions
    assert [repr(lesion) for lesion in again] == [repr(lesion) for lesion in sagittal.lesion_map.lesions]


def test_several_notes_lie_side_by_side(one, tmp_path):
    report = next(o for o in one.outputs() if o.kind == "sr")
    notes = tuple(Output("ko", replace(report).dataset) for _ in range(2))
    result = write_result_set(reading_of(one.lesion_map, outputs=(report, *notes)), tmp_path)
    assert [o["path"] for o in result["outputs"]] == ["sr.dcm", "ko-0001.dcm", "ko-0002.dcm"]
    assert set(result["files"]) == {p.name for p in tmp_path.iterdir()}


@pytest.mark.parametrize("name", ["lesion_map.npz", "result.json"])
def test_a_set_that_has_changed_is_not_read_again(name, one, tmp_path):
    write_result_set(reading_of(one.lesion_map, source=one.source), tmp_path)
    recorded = sha256_of(tmp_path / "result.json")
    assert read_former(tmp_path, 3, sha256=recorded).load_found().lesion_map.lesions
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StoredBytesChanged, match=name):
        read_former(tmp_path, 3, sha256=recorded).load_found()
