"""Independent validators of DICOM objects: dicom3tools, DCMTK, PixelMed.

What they call an error and is none stands on a short list here, each with its proof.
"""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pydicom import Dataset, dcmread

from support.environment import peer

_SEGMENTATION, _LABEL_MAP = b"1.2.840.10008.5.1.4.1.1.66.4", b"1.2.840.10008.5.1.4.1.1.66.7"
_IODS = {
    "Segmentation",
    "Comprehensive3DSR",
    "ComprehensiveSR",
    "EnhancedSR",
    "SCImage",
    "EncapsulatedPDF",
    "KeyObjectSelectionDocument",
}
_OLDER_THAN_LABEL_MAPS = re.compile(
    r"Error - (Unrecognized enumerated value <LABELMAP> for value 1 of attribute <Segmentation Type>"
    r"|Missing attribute Type 1 Required Element=<SegmentIdentificationSequence> Module=<SegmentationMacro>"
    r"|SegmentNumber not monotonically increasing from one by one - have SegmentSequence item number 1 "
    r"\(from one\) with SegmentNumber of 0"
    r"|Value is zero for value 1 of attribute <Segment Number>)"
)
"""dciodvfy of 2022 is older than Supplement 243 (2024): that made LABELMAP a Segmentation Type with a SOP
class of its own, whose frames name no segment and whose Segment Number 0 is the background (PS3.3 C.8.20)."""
_GROUP = r'.*/CONTAINER \(125007,DCM,"Measurement Group"\)'
_EXTENSION = re.compile(
    rf"Warning: \S+: {_GROUP}/SCOORD(3D)? "
    r'\((111010,DCM,"Center"|STACK-CENTER,99MSNODE,"Center of the image stack")\)'
    r'(/IMAGE \(260753009,SCT,"Source"\))?: Content Item not in template'
)
"""PixelMed warns of every item that a template does not name. TID 1411 and TID 1501 are extensible (PS3.16):
items may be added. None of their own rows can hold a place: rows 5, 7 and 10 of TID 1411 exclude each other,
and TID 1501 has none."""
_TAKEN_FOR_1411 = re.compile(
    rf'Error: Template 1411 VolumetricROIMeasurements/\[Row 1\] CONTAINER \(125007,DCM,"Measurement Group"\)'
    r'/(\[Row 5\] SCOORD \(111030,DCM,"Image Region"\)|\[Row 7\] IMAGE \(121191,DCM,"Referenced Segment"\)'
    r'|\[Row 10\] SCOORD3D \(121231,DCM,"Volume Surface"\))'
    rf": within (?P<group>[\d.]+): {_GROUP}: Missing conditional content item"
    rf'|Warning: (?P<parent>[\d.]+)\.\d+: {_GROUP}/IMAGE \(121112,DCM,"Source of Measurement"\)'
    r": Content Item not in template"
)
"""Once one group of a report references a segment, PixelMed checks every group as TID 1411. In a group that
is declared as TID 1501 it then misses rows 5, 7 and 10 of TID 1411, which that template does not have, and
does not know row 10 of TID 1501, the source of the measurements."""
_WITHOUT_XPATH_LIMITS = [
    f"-Djdk.xml.{limit}=0" for limit in ("xpathExprOpLimit", "xpathTotalOpLimit", "xpathExprGrpLimit")
]
"""Java 17 refuses PixelMed's style sheets under its default limits."""
_JAVAS = 2


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.stdout + done.stderr


def dciodvfy_errors(path: Path) -> list[str]:
    """What dciodvfy calls an error in one file; it must at least have recognised an IOD."""
    content = path.read_bytes()
    label_map = _LABEL_MAP in content
    with TemporaryDirectory() as folder:
        if label_map:  # called by the class that the validator knows, all the rest is checked
            path = Path(folder) / path.name
            path.write_bytes(content.replace(_LABEL_MAP, _SEGMENTATION))
        output = _output([peer("dciodvfy"), str(path)])
    lines = output.splitlines()
    assert not _IODS.isdisjoint(lines), output
    errors = [line for line in lines if line.startswith("Error")]
    return [e for e in errors if not (label_map and _OLDER_THAN_LABEL_MAPS.fullmatch(e.strip()))]


def dcentvfy_complaints(paths: Sequence[Path]) -> list[str]:
    """Attributes of one patient, study or series that differ between files."""
    return _output([peer("dcentvfy"), *map(str, paths)]).splitlines()


def dsrdump(path: Path) -> str:
    """The report as DCMTK understands it; raises where it cannot be parsed."""
    command = [peer("dsrdump"), str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def pixelmed_complaints(paths: Sequence[Path]) -> dict[Path, list[str]]:
    """Errors and warnings of PixelMed's SR validator on reports, shared out among few starts of Java."""
    peer("pixelmed")
    classes = f"{Path(__file__).parent}:/usr/share/java/pixelmed.jar:/usr/share/java/*"
    java = [peer("java"), *_WITHOUT_XPATH_LIMITS, "-XX:+UseSerialGC", "-cp", classes, "ValidateReports"]
    running = [
        subprocess.Popen(
            [*java, *map(str, part)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for part in (paths[n::_JAVAS] for n in range(_JAVAS))
        if part
    ]
    output = "".join(process.communicate(timeout=300)[0] for process in running)
    said = dict(part.split("\n", 1) for part in output.split("File ")[1:])
    return {path: _complaints(said.get(str(path), output), dcmread(path)) for path in paths}


def _complaints(said: str, report: Dataset) -> list[str]:
    assert "Found Root Template TID_1500" in said, said
    assert "Root Template Validation Complete" in said, said
    lines = [line.strip() for line in said.splitlines() if line.startswith(("Error", "Warning"))]
    return [line for line in lines if not _EXTENSION.fullmatch(line) and not _is_misreading(line, report)]


def _is_misreading(line: str, report: Dataset) -> bool:
    """Whether PixelMed checked as TID 1411 a group declared as TID 1501; it numbers items from 1 at the
    root."""
    found = _TAKEN_FOR_1411.fullmatch(line)
    if found is None:
        return False
    item = report
    for number in (found["group"] or found["parent"]).split(".")[1:]:
        item = item.ContentSequence[int(number) - 1]
    return bool(item.ContentTemplateSequence[0].TemplateIdentifier == "1501")
