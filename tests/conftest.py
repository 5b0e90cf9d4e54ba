"""Fixtures for the whole suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import peers


@pytest.fixture(scope="session")
def session_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.OrthancPeer]:
    """One Orthanc for all tests; take `orthanc`, which is empty."""
    with peers.orthanc(tmp_path_factory.mktemp("orthanc")) as found:
        yield found


@pytest.fixture
def orthanc(session_orthanc: peers.OrthancPeer) -> peers.OrthancPeer:
    """An Orthanc that holds nothing when the test begins."""
    session_orthanc.delete_all()
    return session_orthanc


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[peers.StoreScpPeer]:
    """A DCMTK storescp with an empty folder."""
    with peers.storescp(tmp_path) as found:
        yield found
