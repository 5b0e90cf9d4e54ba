from pathlib import Path

import numpy as np
import pytest

from msnode.errors import NotAVolume
from msnode.series.intensities import check_saturation, fill_padding
from msnode.series.volume import group_series, read_instance, to_volume
from support.dicom_files import flair_series, head_pixels

HEAD = head_pixels(12, 64, 64)
AIR = HEAD < 60


def volume(paths: list[Path]):
    (series,) = group_series(read_instance(path) for path in paths)
    return to_volume(series)


def signed_series(folder: Path, padding: int, **stated: object) -> list[Path]:
    words = np.where(AIR, np.int16(padding), HEAD.astype(np.int16)).view(np.uint16)
    return flair_series(
        folder, pixels=words, BitsStored=16, HighBit=15, PixelRepresentation=1, **stated
    )  # fmt: skip


@pytest.mark.parametrize(
    ("padding", "stated"),
    [
        (-32768, {"PixelPaddingValue": -32768}),
        (-2000, {"PixelPaddingValue": -2000}),
        (-1500, {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1000}),
        (-1500, {"PixelPaddingValue": -1000, "PixelPaddingRangeLimit": -2000}),
        (0, {"PixelPaddingValue": 0}),
        (32767, {"PixelPaddingValue": 32767}),
    ],
)
def test_stated_padding_is_background(tmp_path: Path, padding: int, stated: dict[str, object]) -> None:
    source = volume(signed_series(tmp_path, padding, **stated))
    assert np.array_equal(source.volume.data, np.where(AIR, 0, HEAD))
    assert source.warnings == ()


def test_a_padding_value_of_the_other_sign_is_the_same_word(tmp_path: Path) -> None:
    paths = signed_series(tmp_path, -32768, PixelPaddingValue=-32768)
    for path in paths:
        tag = b"\x28\x00\x20\x01"
        path.write_bytes(path.read_bytes().replace(tag + b"SS", tag + b"US"))
    assert np.array_equal(volume(paths).volume.data, np.where(AIR, 0, HEAD))


def test_padding_is_found_before_the_rescale(tmp_path: Path) -> None:
    paths = signed_series(tmp_path, -32768, PixelPaddingValue=-32768, RescaleSlope=2, RescaleIntercept=-200)
    data = volume(paths).volume.data
    darkest = HEAD[~AIR].min() * 2.0 - 200
    assert np.array_equal(data, np.where(AIR, min(0, darkest), HEAD * 2.0 - 200))


@pytest.mark.parametrize("padding", [-32768, 32767])
def test_padding_that_no_header_states_is_background_and_said(tmp_path: Path, padding: int) -> None:
    source = volume(signed_series(tmp_path, padding))
    assert np.array_equal(source.volume.data, np.where(AIR, 0, HEAD))
    assert "far from all others: read as background" in source.warnings[0]


def test_nothing_but_padding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAVolume, match="every voxel is padding"):
        volume(signed_series(tmp_path, -5, PixelPaddingValue=-5, PixelPaddingRangeLimit=5000))


@pytest.mark.parametrize("background", [0, -40])
def test_a_stripped_background_is_no_padding(background: int) -> None:
    data = np.where(AIR, np.float32(background), HEAD.astype(np.float32))
    before = data.copy()
    assert fill_padding(data) == ()
    assert np.array_equal(data, before)


def cut_off(share: float, slopes: np.ndarray | float = 1.0) -> np.ndarray:
    """The head with its brightest inner voxels cut off, so that about `share` of it is a plateau."""
    head = head_pixels(12, 128, 128)
    inner = head[3:9, 32:96, 32:96]
    return (np.minimum(head, np.quantile(inner, 1 - share)) * slopes).astype(np.float32)


def test_a_plateau_is_said_and_a_large_one_refused() -> None:
    assert check_saturation(HEAD.astype(np.float32)) == ()
    (said,) = check_saturation(cut_off(0.005))
    assert "intensities are cut off" in said
    with pytest.raises(NotAVolume, match="saturated pixels"):
        check_saturation(cut_off(0.1))


def test_a_plateau_is_seen_under_a_scale_for_each_slice() -> None:
    with pytest.raises(NotAVolume, match="saturated pixels"):
        check_saturation(cut_off(0.1, np.linspace(1, 2, 12)[:, None, None]))


def test_bright_fat_that_is_cut_off_refuses_nothing() -> None:
    scalp = HEAD.astype(np.float32)
    scalp[:, 4:10] = 4095
    assert check_saturation(scalp) == ()


@pytest.mark.parametrize("value", [0, 7])
def test_a_flat_image_has_no_plateau(value: float) -> None:
    assert check_saturation(np.full((4, 16, 16), value, np.float32)) == ()
