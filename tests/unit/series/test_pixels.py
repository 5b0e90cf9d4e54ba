import resource
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from msnode.errors import NotReadable, OutOfResources
from msnode.series.pixels import codestream_size, decode
from support.dicom_files import flair_series
from support.environment import shared_data


def test_a_machine_that_fails_says_nothing_of_the_file(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, slices=3, rows=8, columns=8)
    assert decode(paths[0]).shape == (1, 8, 8)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))  # no file can be opened
    try:
        with pytest.raises(OutOfResources, match="Too many open files"):
            decode(paths[0])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_unsupported_transfer_syntax_is_named(tmp_path: Path) -> None:
    (path,) = flair_series(tmp_path, slices=1)
    ds = dcmread(path)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(path)
    with pytest.raises(NotReadable, match=r"1\.2\.840\.10008\.1\.2\.1\.99"):
        decode(path)


def test_an_image_that_expands_without_measure_is_not_decoded(tmp_path: Path) -> None:
    (path,) = flair_series(tmp_path, slices=1)
    ds = dcmread(path)
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.Rows, ds.Columns = 4096, 4096
    ds.save_as(path)
    with pytest.raises(NotReadable, match="expands to 33554432: at most 500 times"):
        decode(path)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_bits_above_bits_stored_are_no_values_when_compressed(
    tmp_path: Path, syntax: UID, *, signed: bool
) -> None:
    (path,) = flair_series(tmp_path, slices=1, rows=32, columns=32, PixelRepresentation=int(signed))
    clean = decode(path)
    ds = dcmread(path)
    ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") | 0x8000).tobytes()
    ds.BitsStored, ds.HighBit = 16, 15  # dcmcjpls too encodes whole words
    ds.compress(syntax, generate_instance_uid=False)
    ds.BitsStored, ds.HighBit = 12, 11
    ds.save_as(path)
    assert np.array_equal(decode(path), clean)


def test_damaged_rle_is_not_readable(tmp_path: Path) -> None:
    (path,) = flair_series(tmp_path, slices=1)
    ds = dcmread(path)
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.PixelData = ds.PixelData[:-200]
    ds.save_as(path)
    with pytest.raises(NotReadable):
        decode(path)


@pytest.mark.data
@pytest.mark.parametrize(("name", "maximum"), [("AxInt36mb/jp2k1.dcm", 2165), ("AxAsc36mb2a/jpg1.dcm", 2065)])
def test_real_jpeg_files_decode(tmp_path: Path, name: str, maximum: int) -> None:
    path = shared_data(f"dicom/dcm_qa/In/Orientation/axmb/{name}")
    values = decode(path)
    assert values.shape == (1, 516, 516)
    assert values.max() == maximum
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(path.read_bytes()[:-20000])
    with pytest.raises(NotReadable):
        decode(damaged)


@pytest.mark.data
def test_codestream_that_declares_another_size_never_reaches_the_decoder(tmp_path: Path) -> None:
    path = shared_data("dicom/dcm_qa/In/Orientation/axmb/AxInt36mb/jp2k1.dcm")
    data = path.read_bytes()
    at = data.find(b"\xff\x4f\xff\x51") + 8
    bomb = tmp_path / "bomb.dcm"
    bomb.write_bytes(data[:at] + (60000).to_bytes(4, "big") * 2 + data[at + 8 :])
    with pytest.raises(NotReadable, match="60000"):
        decode(bomb)


@pytest.mark.parametrize("stream", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x10JFIF", bytes(64)])
def test_unclear_codestream_has_no_size(stream: bytes) -> None:
    assert codestream_size(stream) is None
