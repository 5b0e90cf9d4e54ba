import resource
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import RLELossless

from msnode.errors import OutOfResources
from msnode.series import comparison
from msnode.series.comparison import Limits, same_image
from support.dicom_files import change, flair_series


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The same image twice."""
    return flair_series(tmp_path / "a", slices=1)[0], flair_series(tmp_path / "b", slices=1)[0]


@pytest.fixture
def no_child(monkeypatch) -> None:
    def refused(*_: object, **__: object) -> None:
        pytest.fail("nothing is to be decoded")

    monkeypatch.setattr(subprocess, "run", refused)


def compress(path: Path) -> None:
    ds = dcmread(path)
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(path)


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize("is_compressed", [False, True])
def test_another_header_is_compared_without_decoding(pair, is_compressed: bool) -> None:  # noqa: FBT001 - a parameter
    if is_compressed:
        for path in pair:
            compress(path)
    change(pair[1], PatientID="MERGED")
    assert same_image(*pair)


@pytest.mark.usefixtures("no_child")
def test_other_geometry_is_another_image(pair) -> None:
    change(pair[1], ImagePositionPatient=[0, 0, 1])
    assert not same_image(*pair)


def test_other_pixels_are_another_image(pair) -> None:
    change(pair[1], PixelData=bytes(len(dcmread(pair[1]).PixelData)))
    assert not same_image(*pair)


def test_pixels_that_mean_something_else_are_another_image(pair) -> None:
    change(pair[1], BitsStored=4, HighBit=3)
    assert not same_image(*pair)


def test_another_transfer_syntax_is_decoded_by_a_child(pair) -> None:
    compress(pair[1])
    assert same_image(*pair)
    change(pair[0], PixelData=bytes(len(dcmread(pair[0]).PixelData)))
    assert not same_image(*pair)


def test_files_without_pixels_show_no_image(pair) -> None:
    for path in pair:
        ds = dcmread(path)
        del ds.PixelData
        ds.save_as(path)
    assert not same_image(*pair)


def test_a_damaged_stream_is_another_image(pair) -> None:
    compress(pair[1])
    change(pair[1], PixelData=dcmread(pair[1]).PixelData[:-200])
    assert not same_image(*pair)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("import os; os.abort()", "exit_code=-6"),
        ("while True: pass", "state=timeout"),
        ("raise MemoryError", "exit_code=1"),
    ],
    ids=["crash", "hang", "memory"],
)
def test_a_child_that_fails_makes_the_images_different(
    pair, monkeypatch, capsys, body: str, says: str
) -> None:
    """In place of a decoder that is broken by what it reads."""
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda _, **how: run([sys.executable, "-c", body], **how))
    compress(pair[1])
    assert not same_image(*pair, Limits(seconds=3))
    assert says in capsys.readouterr().out


def test_the_child_has_limits(tmp_path: Path) -> None:
    one, other = (flair_series(tmp_path / n, slices=1, rows=2048, columns=2048)[0] for n in "ab")
    compress(other)
    assert same_image(one, other)
    assert not same_image(one, other, Limits(memory_bytes=2**20))


def test_a_machine_that_fails_says_nothing_of_the_images(pair, monkeypatch) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))  # no file can be opened
    try:
        with pytest.raises(OutOfResources, match="Too many open files"):
            same_image(*pair)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def full(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    compress(pair[1])
    monkeypatch.setattr(subprocess, "run", full)
    with pytest.raises(OutOfResources, match="cannot start a comparison"):
        same_image(*pair)


def test_the_body_of_the_child(pair, monkeypatch) -> None:
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    arguments = ("30", str(2**32), *map(str, pair))
    assert comparison._main(*arguments) == 10
    change(pair[1], PixelData=bytes(len(dcmread(pair[1]).PixelData)))
    assert comparison._main(*arguments) == 11
    pair[1].write_bytes(b"")
    assert comparison._main(*arguments) == 11
