"""The image decoders, which processes that decode nothing keep out.

pydicom loads every decoder that is installed when it is loaded itself. They are written in C and were seen to
end or hold their process on damaged streams.
"""

from __future__ import annotations

import sys

DECODERS = ("gdcm", "_gdcm", "jpeg_ls", "pylibjpeg", "libjpeg", "openjpeg", "rle")
"""Modules that pydicom loads to decode pixel data."""


def keep_out() -> None:
    """Make these modules absent in this process. It works only before pydicom is loaded."""
    for name in DECODERS:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None: an import of it fails
