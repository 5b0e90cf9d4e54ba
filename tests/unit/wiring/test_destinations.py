import pytest

from msnode.deliver.dicom import CONTEXT_OF_KIND, LABEL_MAP
from msnode.dicom.uids import LABEL_MAP_STORAGE
from msnode.settings import DicomDestination, ResultsSettings, Settings
from msnode.wiring.destinations import destinations, result_rules


def settings_of(segmentation="lesions", objects=("seg",)):
    there = DicomDestination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, objects=objects)
    return Settings(destinations=(there,), results=ResultsSettings(segmentation=segmentation))


@pytest.mark.parametrize(("form", "asked"), [("lesions", False), ("single", False), ("labelmap", True)])
def test_a_destination_knows_in_which_form_segmentations_come(form, asked):
    assert destinations(settings_of(form))["pacs"].label_map is asked
    assert result_rules(settings_of(form)).segmentation == form


def test_a_destination_asks_for_the_class_that_is_written():
    assert LABEL_MAP.sop_class_uid == LABEL_MAP_STORAGE


def test_every_kind_that_a_destination_may_take_has_a_context():
    objects = ("seg", "sr", "overlay", "ko", "summary", "pdf", "probability")
    assert result_rules(settings_of(objects=objects)).kinds <= set(CONTEXT_OF_KIND)
