import numpy as np
import pytest
from pydicom import dcmread

from msnode.encode import ResultRules, encode_probability, encode_results, to_bytes
from support.dicom_files import flair_series
from support.readings import provenance, read


@pytest.fixture
def reading(tmp_path):
    return read(flair_series(tmp_path / "in", slices=6, rows=20, columns=21), 2)


def probability_of(reading):
    """Every value from 0 to 255 on slices 1 and 4, nothing elsewhere."""
    values = np.zeros(reading.source.volume.grid.shape, np.uint8)
    values[1].flat[:256] = np.arange(256)
    values[4, 3, 5] = 1
    return values


def test_values_are_stored_as_they_are_on_every_plane(reading, tmp_path):
    values = probability_of(reading)
    path = tmp_path / "probability.dcm"
    path.write_bytes(to_bytes(encode_probability(reading.source, values, provenance())))
    ds = dcmread(path)
    assert (ds.SegmentationType, ds.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    assert ds.MaximumFractionalValue == 255
    assert ds.SeriesDescription == "MS AI PROBABILITY"
    assert ds.SegmentSequence[0].SegmentLabel == "MS lesion probability"
    order = [f.instance.sop_instance_uid for f in reading.source.frames]
    named = [
        order.index(g.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        for g in ds.PerFrameFunctionalGroupsSequence
    ]
    assert sorted(named) == list(range(6))
    np.testing.assert_array_equal(ds.pixel_array, values[named])


def test_nothing_probable_is_no_object(reading):
    nothing = np.zeros(reading.source.volume.grid.shape, np.uint8)
    with pytest.raises(ValueError, match="over zero"):
        encode_probability(reading.source, nothing, provenance())
    assert "probability" not in kinds_of(reading, nothing)


def test_a_map_of_another_shape_is_refused(reading):
    with pytest.raises(ValueError, match="grid"):
        encode_probability(reading.source, np.ones((6, 21, 20), np.uint8), provenance())


def kinds_of(reading, probability, kinds=frozenset({"seg", "sr", "probability"})):
    rules = ResultRules(kinds=kinds)
    outputs = encode_results(
        reading.source, reading.lesion_map, reading.findings, provenance(), rules, probability=probability
    )
    return [output.kind for output in outputs]


def test_it_is_made_only_where_it_is_wanted(reading):
    values = probability_of(reading)
    assert kinds_of(reading, values).count("probability") == 1
    assert "probability" not in kinds_of(reading, None)
    assert "probability" not in kinds_of(reading, values, frozenset({"seg", "sr"}))
