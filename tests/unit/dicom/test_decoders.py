import subprocess
import sys

import pytest

from msnode.dicom.decoders import DECODERS


def loaded(code: str) -> set[str]:
    """The decoders that a fresh process has loaded after `code`."""
    printed = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*(n for n, m in sys.modules.items() if m))"],
        check=True, capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip
    return {name.partition(".")[0] for name in printed.split()} & set(DECODERS)


@pytest.mark.parametrize(
    "code",
    [
        "import msnode.receive.scp, msnode.receive.spool",
        "import msnode.receive, msnode.wiring.node, msnode.wiring.receiving",
        "from msnode.cli.serve import decoders; decoders.keep_out(); import msnode.wiring.receiving",
    ],
)
def test_the_receiver_loads_no_decoder(code: str) -> None:
    assert loaded(code) == set()


def test_who_decodes_has_decoders() -> None:
    assert "gdcm" in loaded("import msnode.series.pixels")
