import numpy as np
import pytest

from msnode.dicom.planes import Plane
from msnode.errors import NotAVolume
from msnode.series.stack import arrange

AXIAL = np.array([1.0, 0, 0, 0, 1, 0])


def plane(depth_mm, *, orientation=AXIAL, spacing=(0.9, 0.9), rescale=(1.0, 0.0), contrast=(), **more):
    position = None if depth_mm is None else np.array([-10.0, -20.0, depth_mm])
    return Plane(None, position, orientation, np.array(spacing), rescale, contrast, **more)


def test_planes_are_ordered_along_their_normal():
    stack = arrange([plane(depth) for depth in (6.0, 0.0, 9.0, 3.0)])
    assert [p.position[2] for p in stack.planes] == [0, 3, 6, 9]
    assert (stack.origin.tolist(), stack.step.tolist()) == ([-10, -20, 0], [0, 0, 3])
    assert (stack.along_row.tolist(), stack.along_column.tolist()) == ([1, 0, 0], [0, 1, 0])


@pytest.mark.parametrize(
    ("planes", "says"),
    [
        ([plane(0.0), plane(3.0)], "2 slices: a volume needs at least 3"),
        ([plane(0.0), plane(3.0), plane(None)], "1 of 3 slices have no Image Position"),
        ([plane(0.0), plane(3.0), plane(6.0, orientation=None)], "1 of 3 slices have no Image Orientation"),
        ([plane(0.0), plane(3.0), plane(6.0, orientation=2 * AXIAL)], "two perpendicular unit vectors"),
        ([plane(0.0), plane(3.0), plane(6.0, orientation=AXIAL[::-1])], "mixed orientations"),
        ([plane(0.0), plane(3.0), plane(6.0, spacing=(0.9, 1.0))], "Pixel Spacing differs"),
        ([plane(0.0), plane(3.0), plane(6.0, spacing=(0.0, 0.9))], "not positive"),
        (
            [plane(0.0), plane(3.0), plane(9.0), plane(12.0)],
            "a slice is missing: 6.00 mm between slices 2 and 3",
        ),
        ([plane(0.0), plane(3.0), plane(7.0), plane(10.0)], "slices are unevenly spaced"),
        (
            [
                plane(0.0, contrast=(("EchoTime", "90"),)),
                plane(0.0, contrast=(("EchoTime", "30"),)),
                plane(3.0),
            ],
            "they differ in EchoTime",
        ),
        (
            [plane(0.0), plane(3.0, rescale=None), plane(6.0)],
            "1 of 3 slices state a rescale that cannot be applied",
        ),
        (
            [plane(0.0, rescaled=True), plane(3.0), plane(6.0)],
            "1 of 3 slices state a rescale (0028,1053) and the others none",
        ),
    ],
)
def test_each_invariant_is_named(planes, says):
    with pytest.raises(NotAVolume) as caught:
        arrange(planes)
    assert says in str(caught.value)


def contrasts(*values, keyword="EchoTime"):
    return [plane(3.0 * k, contrast=((keyword, value),)) for k, value in enumerate(values)]


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("EchoTime", ("120", "120", "95", "120")),
        ("RepetitionTime", ("9000", "9000", "4200", "9000")),
        ("InversionTime", ("2500", "2500", "", "2500")),
        ("InversionTimes", ("2500", "2500", "2500\\400", "2500")),
        ("ScanningSequence", ("SE\\IR", "SE\\IR", "SE", "SE\\IR")),
        (
            "ImageType",
            ("ORIGINAL\\PRIMARY\\M", "ORIGINAL\\PRIMARY\\M", "ORIGINAL\\PRIMARY\\P", "ORIGINAL\\PRIMARY\\M"),
        ),
        ("RescaleType", ("US", "US", "normalized", "US")),
    ],
)
def test_one_stack_has_one_contrast(keyword, values):
    with pytest.raises(NotAVolume) as caught:
        arrange(contrasts(*values, keyword=keyword))
    assert str(caught.value) == (
        f"several contrasts in one stack: 1 of 4 slices (3) differ from the others in {keyword}"
    )


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("EchoTime", ("120", "120.0", "119.6")),
        ("InversionTime", ("", "", "")),
        ("ImageType", ("ORIGINAL\\PRIMARY\\M\\ND", "ORIGINAL\\PRIMARY\\M\\NORM", "DERIVED\\PRIMARY\\M")),
        ("ImageType", ("ORIGINAL\\PRIMARY", "", "ORIGINAL")),
        ("TemporalPositionIdentifier", ("1", "2", "3")),
    ],
)
def test_contrasts_that_are_one(keyword, values):
    assert len(arrange(contrasts(*values, keyword=keyword)).planes) == 3


def test_every_difference_and_slice_is_named():
    planes = [
        plane(
            3.0 * k, contrast=(("EchoTime", "95" if k in (0, 2) else "120"), ("InversionTime", str(k == 4)))
        )
        for k in range(8)
    ]
    with pytest.raises(NotAVolume, match=r"3 of 8 slices \(1, 3, 5\) differ .* in EchoTime, InversionTime"):
        arrange(planes)
