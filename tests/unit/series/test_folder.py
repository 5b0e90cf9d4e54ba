"""The DICOM files in a folder: each image once, and what is left out is said."""

import os
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from msnode.errors import NotReadable
from msnode.series.folder import instances_below
from support.dicom_files import change, change_all, flair_series

SIZE = {"slices": 5, "rows": 8, "columns": 8}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return flair_series(tmp_path, **SIZE)


def test_every_image_once(tmp_path: Path, files: list[Path]) -> None:
    (tmp_path / "again.dcm").write_bytes(files[0].read_bytes())
    (tmp_path / ".DS_Store").write_bytes(b"x")
    instances, said = instances_below(tmp_path)
    assert (len(instances), said) == (5, ())
    assert len(instances_below(files[0])[0]) == 1


def test_other_files_are_left_out_and_said(tmp_path: Path, files: list[Path]) -> None:
    (tmp_path / "notes.txt").write_text("seen by a radiologist")
    (tmp_path / "empty.dcm").touch()
    instances, said = instances_below(tmp_path)
    assert len(instances) == len(files)
    assert said == ("2 of 7 files in the folder were left out: no DICOM files",)


def test_a_dicomdir_is_no_damaged_image(tmp_path: Path, files: list[Path]) -> None:
    directory = Dataset()
    directory.FileSetID, directory.DirectoryRecordSequence = "MEDIA", []
    directory.file_meta = FileMetaDataset()
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    instances, said = instances_below(tmp_path)
    assert (len(instances), said) == (len(files), ())


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("prefix", [b"", b"DICM"])
def test_a_data_set_without_preamble_is_never_left_out(
    tmp_path: Path, files: list[Path], *, big_endian: bool, prefix: bytes
) -> None:
    for file in files[:2]:
        bare = Dataset()
        bare.update({e.tag: e for e in dcmread(file)})
        dcmwrite(file, bare, implicit_vr=not big_endian, little_endian=not big_endian)
        file.write_bytes(prefix + file.read_bytes())
    with pytest.raises(NotReadable, match="2 of 5 files are DICOM data sets without preamble"):
        instances_below(tmp_path)


def test_several_images_under_one_uid_are_refused(tmp_path: Path, files: list[Path]) -> None:
    change_all(files, SOPInstanceUID="1.2.3")
    with pytest.raises(NotReadable, match="5 images under one SOP Instance UID"):
        instances_below(tmp_path)


def test_of_two_headers_of_one_image_the_newer_counts(tmp_path: Path, files: list[Path]) -> None:
    older = tmp_path / "z.dcm"
    older.write_bytes(files[0].read_bytes())
    change(older, AccessionNumber="OLD")
    os.utime(older, (1, 1))
    instances, said = instances_below(tmp_path)
    assert said == ("1 of 6 files in the folder were left out: other headers of images that are there",)
    assert not any(i.header.AccessionNumber == "OLD" for i in instances)


def test_a_damaged_image_is_refused(tmp_path: Path, files: list[Path]) -> None:
    files[0].write_bytes(files[0].read_bytes()[:400])
    with pytest.raises(NotReadable):
        instances_below(tmp_path)


def test_no_dicom_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotReadable, match="no DICOM file among the 0 files"):
        instances_below(tmp_path)
