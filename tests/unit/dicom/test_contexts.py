from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, RLELossless

from msnode.dicom.contexts import COMMITMENT, FIND, VERIFICATION, Context
from msnode.dicom.uids import LABEL_MAP_STORAGE


def test_a_context_is_named_as_the_standard_names_it():
    assert (
        str(Context(MRImageStorage, ExplicitVRLittleEndian))
        == "MR Image Storage in Explicit VR Little Endian"
    )
    assert str(Context(LABEL_MAP_STORAGE, RLELossless)) == "Label Map Segmentation Storage in RLE Lossless"


def test_the_contexts_of_services_differ():
    assert len({VERIFICATION, COMMITMENT, FIND}) == 3
