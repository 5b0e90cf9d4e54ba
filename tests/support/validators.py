"""Independent validators of DICOM objects: dicom3tools, DCMTK, PixelMed."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.environment import peer

_WITHOUT_XPATH_LIMITS = [
    f"-Djdk.xml.{limit}=0" for limit in ("xpathExprOpLimit", "xpathTotalOpLimit", "xpathExprGrpLimit")
]
"""Java 17 refuses PixelMed's style sheets under its default limits."""


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.stdout + done.stderr


def dciodvfy_errors(path: Path) -> list[str]:
    """What dciodvfy calls an error in one file; it must at least have recognised an IOD."""
    output = _output([peer("dciodvfy"), str(path)])
    lines = output.splitlines()
    known = {"Segmentation", "Comprehensive3DSR", "SCImage", "KeyObjectSelectionDocument"}
    assert not known.isdisjoint(lines), output
    return [line for line in lines if line.startswith("Error")]


def dcentvfy_complaints(paths: Sequence[Path]) -> list[str]:
    """Attributes of one patient, study or series that differ between files."""
    return _output([peer("dcentvfy"), *map(str, paths)]).splitlines()


def dsrdump(path: Path) -> str:
    """The report as DCMTK understands it; raises where it cannot be parsed."""
    command = [peer("dsrdump"), str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def pixelmed_complaints(paths: Sequence[Path]) -> dict[Path, list[str]]:
    """Errors and warnings of PixelMed's SR validator, all files at once (each takes a Java start)."""
    peer("pixelmed")
    java = [peer("java"), *_WITHOUT_XPATH_LIMITS, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    command = [*java, "-cp", "/usr/share/java/*", "com.pixelmed.validate.DicomSRValidator"]
    running = {
        path: subprocess.Popen(
            [*command, str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for path in paths
    }
    complaints = {}
    for path, process in running.items():
        output, _ = process.communicate(timeout=300)
        assert "Found Root Template TID_1500" in output, output
        assert "Root Template Validation Complete" in output, output
        complaints[path] = [
            line
            for line in output.splitlines()
            if line.startswith(("Error", "Warning")) and "SLF4J" not in line
        ]
    return complaints
