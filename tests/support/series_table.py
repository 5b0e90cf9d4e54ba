"""A table of series by name and parameters, and what the selection rules make of each row.

`tests/unit/series/series_table.csv` names where a description is documented; "composed" marks what a site's
wording made of a vendor's name. Times are typical of that vendor's sequence. Every third row, by a hash of
its description, was held out while the rules were written; the rows marked "outside" are names from lists
that were found when the rules stood.
"""

import csv
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

from msnode.domain.imaging import Instance, Selection, Series
from msnode.series.select import select

TABLE = Path(__file__).resolve().parents[1] / "unit" / "series" / "series_table.csv"

_MOST_SLICES = 40
"""Of a finer stack as many stand for all, evenly spaced: the rules see the same extent."""

_CLASSES = {
    "": ("MR", MRImageStorage),
    "SR": ("SR", ComprehensiveSRStorage),
    "SC": ("OT", SecondaryCaptureImageStorage),
}
_PLANES = {
    "axial": ([1, 0, 0, 0, 1, 0], (0, 0, 1)),
    "sagittal": ([0, 1, 0, 0, 0, -1], (-1, 0, 0)),
    "coronal": ([1, 0, 0, 0, 0, -1], (0, 1, 0)),
}


@dataclass(frozen=True, eq=False)
class Row:
    """One series of the table.

    Attributes:
        values: the columns by name; an empty text means that the header has no such attribute.
        number: line of the file, from 2.
    """

    values: dict[str, str]
    number: int

    @property
    def name(self) -> str:
        """For test identifiers and error lists."""
        return f"{self.number}: {self.values['vendor']} {self.values['description']!r}"

    @property
    def to_read(self) -> bool:
        """Whether a radiologist would have the model read it."""
        return self.values["expected"] == "read"

    @property
    def part(self) -> str:
        """ "seen" while the rules were written, "held out" then, or "outside": names added afterwards."""
        if self.values["hard"] == "outside":
            return "outside"
        return "held out" if self._held_out else "seen"

    @property
    def _held_out(self) -> bool:
        return hashlib.sha256(self.values["description"].encode()).digest()[0] % 3 == 0

    def selection(self) -> Selection:
        """What the rules say where this is the study's only series."""
        return select([self.series()])

    def series(self, uid: str = "1.2.1") -> Series:
        """The headers of the series."""
        of = self.values
        orientation, normal = _PLANES[of["plane"]]
        modality, sop_class = _CLASSES[of["object"]]
        instances = []
        slices = int(of["slices"])
        for k in range(0, slices, -(-slices // _MOST_SLICES)):
            ds = Dataset()
            ds.SOPClassUID, ds.Modality = sop_class, modality
            ds.SOPInstanceUID = f"{uid}.{k + 1}"
            ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2", uid
            ds.Manufacturer, ds.SeriesDescription = of["vendor"], of["description"]
            ds.ImageType = (of["image_type"] or "ORIGINAL/PRIMARY").split("/")
            ds.ImageOrientationPatient = orientation
            ds.ImagePositionPatient = [n * k * float(of["step"]) for n in normal]
            ds.PixelSpacing = [0.9, 0.9]
            for keyword, column in (
                ("ProtocolName", "protocol"),
                ("MRAcquisitionType", "acquisition"),
                ("InversionTime", "ti"),
                ("EchoTime", "te"),
                ("RepetitionTime", "tr"),
                ("ContrastBolusAgent", "agent"),
                ("BodyPartExamined", "body"),
            ):
                if of[column]:
                    setattr(ds, keyword, of[column])
            instances.append(Instance(path=Path("unused"), digest="0" * 64, header=ds))
        return Series(series_instance_uid=uid, study_instance_uid="1.2", instances=tuple(instances))


@cache
def rows() -> tuple[Row, ...]:
    """The table in its order."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(Row(values, number) for number, values in enumerate(csv.DictReader(file), start=2))
