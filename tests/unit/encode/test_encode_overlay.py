import numpy as np
import pytest
from scipy import ndimage

from msnode.encode import encode_overlay
from msnode.encode.codes import lesion_colour
from msnode.encode.overlay import NOTICE, _magnification
from msnode.encode.planes import plane_of
from support.dicom_files import change, enhanced_flair, flair_series
from support.readings import MARK_BELOW, provenance, read


def overlay(reading):
    outputs = encode_overlay(
        reading.source, reading.lesion_map, provenance(), reading.findings, mark_below=MARK_BELOW
    )
    return [o.dataset for o in outputs]


@pytest.fixture
def reading(tmp_path):
    return read(flair_series(tmp_path / "in", slices=5, rows=64, columns=64), 3)


def test_one_colour_image_a_slice_in_one_series(reading):
    images = overlay(reading)
    assert len(images) == 5
    assert len({ds.SeriesInstanceUID for ds in images}) == 1
    assert len({ds.SOPInstanceUID for ds in images}) == 5
    for ds in images:
        assert (ds.Modality, ds.ConversionType, ds.BurnedInAnnotation) == ("OT", "WSD", "NO")
        assert list(ds.ImageType) == ["DERIVED", "SECONDARY"]
        assert ds.pixel_array.shape == (512, 512, 3)
        assert ds.SeriesDescription == "MS AI OVERLAY"


def test_contours_surround_lesions_and_leave_them_visible(reading):
    images = overlay(reading)
    factor = 8
    plain = overlay(read([f.instance.path for f in reading.source.frames], 0))
    for k, (ds, without) in enumerate(zip(images, plain, strict=True)):
        labels = reading.lesion_map.labels[k].repeat(factor, 0).repeat(factor, 1)
        for finding in reading.findings.lesions:
            rows, columns = np.nonzero(labels == finding.lesion.label)
            if len(rows) == 0:
                continue
            colour = lesion_colour(finding.lesion.label)
            row = (rows.min() + rows.max()) // 2
            left = ds.pixel_array[row, columns.min() - 1] if columns.min() else colour
            assert tuple(left) == colour
            inside = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
            np.testing.assert_array_equal(ds.pixel_array[inside], without.pixel_array[inside])


def coloured(ds, label):
    return (ds.pixel_array == lesion_colour(label)).all(axis=2)


def test_a_lesion_of_low_confidence_is_dashed(tmp_path):
    paths = flair_series(tmp_path / "in", slices=5, rows=64, columns=64)
    solid, marked = (overlay(read(paths, 2, confidences=[c, 0.5])) for c in (0.5, 0.49))
    labels = read(paths, 2).lesion_map.labels
    for k, (before, after) in enumerate(zip(solid, marked, strict=True)):
        full, dashes = coloured(before, 1), coloured(after, 1)
        if (labels[k] == 1).any():
            assert not (dashes & ~full).any()
            assert 0.3 < dashes.sum() / full.sum() < 0.75
            _, runs = ndimage.label(dashes, np.ones((3, 3)))
            assert runs >= 4  # dashes and the number
            assert (before.pixel_array[-30:] != after.pixel_array[-30:]).any()  # the legend
        else:
            np.testing.assert_array_equal(before.pixel_array, after.pixel_array)
        np.testing.assert_array_equal(coloured(before, 2), coloured(after, 2))


def test_every_image_says_that_it_is_not_verified(tmp_path):
    black = np.zeros((3, 64, 64), np.uint16)
    black[1, 30, 30] = 1
    for ds in overlay(read(flair_series(tmp_path / "in", pixels=black), 0)):
        top = ds.pixel_array[:40]
        assert (top == 255).all(axis=2).sum() > 200
        assert ds.ImageComments == NOTICE == "AI result, not verified"


@pytest.mark.parametrize("orientation", ["axial", "sagittal", "coronal"])
def test_enlarged_pixels_cover_the_source_pixels(orientation, tmp_path):
    paths = flair_series(
        tmp_path / "in", slices=4, rows=64, columns=128, spacing=(5.0, 0.9, 0.7), orientation=orientation
    )
    reading = read(paths, 0)
    for ds, frame in zip(overlay(reading), reading.source.frames, strict=True):
        plane, header = plane_of(frame), frame.instance.header
        assert ds.FrameOfReferenceUID == header.FrameOfReferenceUID
        assert [float(v) for v in ds.ImageOrientationPatient] == [
            float(v) for v in header.ImageOrientationPatient
        ]
        corners = []
        for position, spacing in (
            (plane.position, plane.spacing),
            ([float(v) for v in ds.ImagePositionPatient], [float(v) for v in ds.PixelSpacing]),
        ):
            along_row, along_column = np.array(plane.orientation).reshape(2, 3)
            corners.append(np.array(position) - along_row * spacing[1] / 2 - along_column * spacing[0] / 2)
        np.testing.assert_allclose(corners[0], corners[1], atol=1e-6)
        np.testing.assert_allclose(
            np.array([float(v) for v in ds.PixelSpacing]) * [ds.Rows, ds.Columns],
            np.array(plane.spacing) * [64, 128],
        )


def tilted(paths, degrees=25.0):
    """Turn a stack about the patient's left-right and head-foot axes."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])

    def edit(ds):
        row, column = np.array([float(v) for v in ds.ImageOrientationPatient]).reshape(2, 3)
        position = np.array([float(v) for v in ds.ImagePositionPatient])
        ds.ImageOrientationPatient = [f"{v:.10f}" for v in (*(turn @ row), *(turn @ column))]
        ds.ImagePositionPatient = [f"{v:.8f}" for v in turn @ position]

    return [change(path, edit) for path in paths]


SOURCES = {
    **{
        name: lambda folder, name=name: flair_series(
            folder / "in", slices=6, rows=48, columns=64, spacing=(3.0, 0.8, 1.1), orientation=name
        )
        for name in ("axial", "sagittal", "coronal")
    },
    "oblique": lambda folder: tilted(flair_series(folder / "in", slices=6, rows=48, columns=64)),
    "enhanced": lambda folder: [enhanced_flair(folder / "in.dcm", slices=6)],
}


@pytest.mark.parametrize("kind", SOURCES)
def test_contours_lie_around_the_lesions_in_space(kind, tmp_path):
    """Each coloured pixel of a contour lies within two source pixels of its lesion, in LPS mm."""
    reading = read(SOURCES[kind](tmp_path), 1)
    grid = reading.lesion_map.grid
    seen = 0
    for k, ds in enumerate(overlay(reading)):
        voxels = np.argwhere(reading.lesion_map.labels[k] == 1)
        if not len(voxels):
            assert not coloured(ds, 1).any()
            continue
        lesion = grid.to_lps(np.column_stack([np.full(len(voxels), k), voxels]))
        row, column = np.array([float(v) for v in ds.ImageOrientationPatient]).reshape(2, 3)
        step_row, step_column = (float(v) for v in ds.PixelSpacing)
        pixels = np.argwhere(coloured(ds, 1))
        origin = np.array([float(v) for v in ds.ImagePositionPatient])
        places = origin + pixels[:, :1] * step_row * column + pixels[:, 1:] * step_column * row
        distance = np.linalg.norm(places[:, None] - lesion[None], axis=2)
        near = distance.min(axis=1) < 1.5 * max(grid.spacing[1:])
        assert near.sum() > 4 * np.sqrt(len(voxels))  # the number is drawn in this colour too
        assert (distance.min(axis=0) < 10 * max(grid.spacing[1:])).all()
        assert np.linalg.norm(places[near].mean(axis=0) - lesion.mean(axis=0)) < max(grid.spacing[1:])
        seen += 1
    assert seen


def test_large_images_keep_their_size_and_geometry(tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=3, rows=512, columns=400), 1)
    for ds, frame in zip(overlay(reading), reading.source.frames, strict=True):
        header = frame.instance.header
        assert (ds.Rows, ds.Columns) == (512, 400)
        assert ds.ImagePositionPatient == header.ImagePositionPatient
        assert ds.PixelSpacing == header.PixelSpacing


def test_long_stacks_are_not_enlarged():
    assert _magnification((20, 256, 256)) == 2
    assert _magnification((176, 256, 256)) == 1
    assert _magnification((20, 700, 600)) == 1


def test_instance_numbers_run_as_in_the_source(tmp_path):
    paths = flair_series(tmp_path / "in", slices=4, rows=16, columns=16)
    for number, path in enumerate(reversed(paths), start=11):
        change(path, InstanceNumber=number)
    assert [ds.InstanceNumber for ds in overlay(read(paths, 0))] == [4, 3, 2, 1]


def test_missing_instance_numbers_leave_the_order_of_slices(tmp_path):
    paths = flair_series(tmp_path / "in", slices=4, rows=16, columns=16, InstanceNumber=None)
    assert [ds.InstanceNumber for ds in overlay(read(paths, 0))] == [1, 2, 3, 4]


def test_each_image_names_the_plane_it_shows(tmp_path):
    reading = read([enhanced_flair(tmp_path / "in.dcm", slices=4)], 0)
    frames = [ds.SourceImageSequence[0].ReferencedFrameNumber for ds in overlay(reading)]
    assert frames == [f.frame_number for f in reading.source.frames]


def test_a_volume_of_one_value_can_be_drawn(tmp_path):
    reading = read(flair_series(tmp_path / "in", pixels=np.full((3, 16, 16), 7, np.uint16)), 0)
    assert len(overlay(reading)) == 3
