import pytest
from pydicom import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from msnode.dicom.header import is_valid_uid
from msnode.dicom.uids import (
    EQUIPMENT,
    LABEL_MAP_STORAGE,
    MR_IMAGE_CLASSES,
    derive_uid,
    is_own,
    sop_class_name,
)


def test_derived_uids_depend_on_each_part():
    assert derive_uid("ab", "c") == derive_uid("ab", "c") != derive_uid("a", "bc")
    assert is_valid_uid(derive_uid("ab"))
    assert len(derive_uid("ab")) <= 44


def test_names_of_sop_classes():
    assert sop_class_name(LABEL_MAP_STORAGE) == "Label Map Segmentation Storage"
    assert sop_class_name(MRImageStorage) == "MR Image Storage"
    assert sop_class_name("1.2.3") == "1.2.3"
    assert {MRImageStorage, EnhancedMRImageStorage} <= MR_IMAGE_CLASSES


@pytest.mark.parametrize(
    ("manufacturer", "own"), [(EQUIPMENT, True), (" MSNODE ", True), ("Other", False), (None, False)]
)
def test_own_objects_are_known_by_their_equipment(manufacturer, own):
    item, header = Dataset(), Dataset()
    item.Manufacturer = manufacturer
    assert not is_own(header)
    header.ContributingEquipmentSequence = [item]
    assert is_own(header) is own
