"""Fixtures for the whole suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import peers
from support.postgres import PostgresServer, postgres_server


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


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests; each takes a `new_database`, and nobody stops it."""
    with postgres_server(tmp_path_factory.mktemp("postgres"), in_memory=True) as found:
        yield found


@pytest.fixture(scope="session")
def session_own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests that stop theirs; take `own_postgres`, which runs."""
    with postgres_server(tmp_path_factory.mktemp("own-postgres"), in_memory=True) as found:
        yield found


@pytest.fixture
def own_postgres(session_own_postgres: PostgresServer) -> PostgresServer:
    """A PostgreSQL that this test may stop, with an empty database at `url`."""
    session_own_postgres.close()
    session_own_postgres.start()
    session_own_postgres.url = session_own_postgres.new_database()
    return session_own_postgres
