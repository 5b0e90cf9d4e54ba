import ast
from pathlib import Path

import pydicom.config
import pytest
from pynetdicom import _config

import msnode
from msnode.dicom import planes, pynetdicom_seams
from msnode.errors import NotReadable
from msnode.series.volume import read_instance
from support.dicom_files import flair_series

PACKAGE = Path(msnode.__file__).parent


def test_identifiers_are_never_logged():
    assert pynetdicom_seams
    assert not _config.LOG_REQUEST_IDENTIFIERS
    assert not _config.LOG_RESPONSE_IDENTIFIERS
    assert _config.LOG_HANDLER_LEVEL == "none"


def test_pydicom_quotes_no_values_in_warnings():
    assert planes
    assert pydicom.config.settings.reading_validation_mode == pydicom.config.IGNORE


def test_a_truncated_file_is_an_error(tmp_path):
    (path,) = flair_series(tmp_path, slices=1)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(NotReadable):
        read_instance(path)


def test_no_other_module_changes_a_setting_of_a_library():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(ast.unparse(t).startswith(("_config.", "pydicom.config.")) for t in targets):
                found.add(path.relative_to(PACKAGE).as_posix())
    assert found == {"dicom/library_settings.py"}
