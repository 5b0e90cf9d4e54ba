import pytest
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage

from msnode.errors import ConfigurationError
from msnode.receive.accepted import sop_class_uids


def test_classes_are_named_by_keyword_or_uid() -> None:
    assert sop_class_uids(["SecondaryCaptureImageStorage", CTImageStorage]) == {
        SecondaryCaptureImageStorage,
        CTImageStorage,
    }


@pytest.mark.parametrize("name", ["Verification", "NoSuchStorage", "1.2.3", "", "../../x"])
def test_what_is_not_a_storage_class_is_a_configuration_error(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a storage SOP class"):
        sop_class_uids([name])
