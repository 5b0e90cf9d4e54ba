"""Every setting of pydicom and pynetdicom that msnode changes, each with its reason.

Both libraries keep their settings in module globals, so they hold for the whole process. `dicom.header`
applies those of pydicom, `dicom.pynetdicom_seams` those of pynetdicom. Most processes never load pynetdicom,
which is why the two are applied separately.
"""

from __future__ import annotations

import warnings

import pydicom.charset
import pydicom.config

from msnode.dicom.character_sets import CODEC_OF_TERM, CodecOfAnyTerm


def configure_pydicom() -> None:
    """Apply the settings for reading DICOM files and data sets."""
    # pydicom's warnings quote the offending value, which may be a name or a birth date.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    # By default pydicom takes an unknown Specific Character Set for the name of any Python codec.
    pydicom.charset.python_encoding = CodecOfAnyTerm(CODEC_OF_TERM)
    # A truncated data set is an error. By default pydicom returns the part that it has read and warns.
    warnings.filterwarnings("error", message="End of file reached", category=UserWarning)


def configure_pynetdicom() -> None:
    """Apply the settings for associations, as requestor and as acceptor."""
    from pynetdicom import _config  # noqa: PLC0415 - most processes do not need pynetdicom

    # Identifiers hold patient data.
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    # pynetdicom's own event handlers log every PDU.
    _config.LOG_HANDLER_LEVEL = "none"
    # C-STORE sends the data set of a file as it is, without decoding it.
    _config.STORE_SEND_CHUNKED_DATASET = True
