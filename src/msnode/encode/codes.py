"""Every coded concept that results use, and the colours of lesions.

Codes come from DICOM (DCM, PS3.16 Annex D), SNOMED CT (SCT, the subset DICOM may use), LOINC (LN), UCUM,
UMLS, RadLex and IBSI. A concept without a code in one of these is written as text, or in a private scheme
that the object declares, never as a code that looks like one of theirs.
"""

from __future__ import annotations

from functools import cache

from highdicom.sr import CodedConcept
from pydicom.sr.coding import Code

# --- what is segmented (PS3.16 CID 7150, CID 7151) and where
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
LESION_OF_BRAIN = Code("301766008", "SCT", "Lesion of Brain")
BRAIN = Code("12738006", "SCT", "Brain")

# --- who did it
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
DEVICE = Code("121007", "DCM", "Device")

# --- the report (PS3.16 TID 1500)
REPORT_TITLE = Code("126000", "DCM", "Imaging Measurement Report")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure reported")
MRI = Code("25056-3", "LN", "MRI unspecified body region")
"""CID 100 has no code for MRI of the brain; the finding site says which region."""
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
COMMENT = Code("121106", "DCM", "Comment")

# --- one group of measurements (TID 1411, TID 1501)
SOURCE_SERIES = Code("121232", "DCM", "Source series for segmentation")
CENTER = Code("111010", "DCM", "Center")
VOLUME = Code("118565006", "SCT", "Volume")
BRAIN_VOLUME = Code("YEKZ", "IBSI", "Volume from Voxel Summation")
"""Of the whole brain: another concept than that of lesions (both CID 7472), so that neither is taken for the
other; its finding site and its equivalent meaning say of what."""
LONG_AXIS = Code("103339001", "SCT", "Long axis")
IMAGE_VIEW = Code("111031", "DCM", "Image View")
AXIAL = Code("24422004", "SCT", "Axial")
EQUIVALENT_MEANING = Code("121050", "DCM", "Equivalent Meaning of Concept Name")
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
"""How certain the device is of a finding, 0-100 % (PS3.16 Annex D; the CAD reports' concept)."""
NUMBER_OF_LESIONS = Code("246206008", "SCT", "Number of lesions")
MILLIMETRE = Code("mm", "UCUM", "millimeter")
CUBIC_MILLIMETRE = Code("mm3", "UCUM", "cubic millimeter")
MILLILITRE = Code("mL", "UCUM", "milliliter")
PERCENT = Code("%", "UCUM", "Percent")
NO_UNITS = Code("1", "UCUM", "no units")

# --- the summary (CID 6047)
SUMMARY = Code("111017", "DCM", "CAD Processing and Findings Summary")
ALL_SUCCEEDED_WITHOUT_FINDINGS = Code("111241", "DCM", "All algorithms succeeded; without findings")
ALL_SUCCEEDED_WITH_FINDINGS = Code("111242", "DCM", "All algorithms succeeded; with findings")
SOME_SUCCEEDED_WITHOUT_FINDINGS = Code("111243", "DCM", "Not all algorithms succeeded; without findings")
SOME_SUCCEEDED_WITH_FINDINGS = Code("111244", "DCM", "Not all algorithms succeeded; with findings")
NONE_SUCCEEDED = Code("111245", "DCM", "No algorithms succeeded; without findings")

# --- what limits a reading
SERIES_QUALITY = Code("130550", "DCM", "Imaging Series Quality")
LIMITED_QUALITY = Code("RID13", "RADLEX", "Limited quality")
"""CID 7036 Image Quality Assessment."""
PRIVATE_SCHEME = "99MSNODE"
"""Of concepts that no standard scheme has; every object that uses it declares it (0008,0110)."""
MODEL_SCOPE = Code("SCOPE", PRIVATE_SCHEME, "Model's scope of use")
STACK_CENTER = Code("STACK-CENTER", PRIVATE_SCHEME, "Center of the image stack")
OUTSIDE_MODEL_SCOPE = Code("OUTSIDE", PRIVATE_SCHEME, "Outside the model's scope of use")

# --- why results are rejected (CID 7010; IHE RAD, Imaging Object Change Management)
REJECTED_FOR_QUALITY = Code("113001", "DCM", "Rejected for Quality Reasons")
REJECTED_FOR_SAFETY = Code("113037", "DCM", "Rejected for Patient Safety Reasons")

# --- references between images (CID 7202)
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")

_PALETTE = (
    (255, 225, 25),
    (0, 220, 255),
    (255, 80, 200),
    (90, 230, 70),
    (255, 150, 30),
    (120, 150, 255),
    (255, 90, 80),
    (60, 220, 170),
    (210, 130, 255),
    (220, 245, 110),
)


def lesion_colour(label: int) -> tuple[int, int, int]:
    """The colour (red, green, blue; 0-255) of a lesion: the same in SEG and overlay, on every day."""
    return _PALETTE[(label - 1) % len(_PALETTE)]


@cache
def concept(code: Code) -> CodedConcept:
    """The code as an item of code sequences (PS3.3 Table 8.8-1): one object, which all results share."""
    return CodedConcept.from_code(code)
