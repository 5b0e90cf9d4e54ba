import os
import traceback
from types import SimpleNamespace

import psutil
import psycopg
import pytest
import sqlalchemy as sa

from msnode.engine import connections
from msnode.errors import ConfigurationError, OutOfResources
from support.disks import small_disk

NAME = "SECRET"  # not written out below, where a traceback would quote it
PATIENT = sa.Table("patient", sa.MetaData(), sa.Column("id", sa.Text, primary_key=True))


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request, tmp_path):
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
    else:
        url = f"sqlite:///{tmp_path / 'm.db'}"
    engine = connections.open_engine(connections.checked(url), kept=1, at_most=2)
    PATIENT.create(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def server_engine(postgres):
    engine = connections.open_engine(connections.checked(postgres.url), kept=1, at_most=2)
    yield engine
    engine.dispose()


def run(engine, statement, **values):
    with connections.translated(), engine.begin() as connection:
        return connection.execute(sa.text(statement) if isinstance(statement, str) else statement, values)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("postgresql+psycopg2://msnode:secret@db/msnode", "postgresql.psycopg2 is not supported"),
        ("postgresql+psycopg://msnode:secret@db", "name of the database is missing"),
        ("mysql://msnode:secret@db/msnode", "mysql is not supported"),
        ("sqlite://", "missing or relative"),
        ("sqlite:///msnode.db", "missing or relative"),
        ("msnode.db", "not a URL"),
        ("postgresql+psycopg://msnode:secret@db:port/msnode", "not a URL"),
    ],
)
def test_what_is_no_address_of_a_record_is_refused(url, complaint):
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        connections.checked(url)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nowhere does not exist"):
        connections.checked(f"sqlite:///{tmp_path / 'nowhere' / 'm.db'}")


def mounted(monkeypatch, *mounts):
    """The machine's mount table, as it were."""
    table = [SimpleNamespace(mountpoint=str(point), fstype=kind) for point, kind in mounts]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: table)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p", "ceph", "fuse.glusterfs", "lustre"])
def test_sqlite_on_a_network_file_system_is_refused(tmp_path, monkeypatch, kind):
    share = tmp_path / "share"
    (share / "node").mkdir(parents=True)
    mounted(monkeypatch, ("/", "ext4"), (share, kind))
    with pytest.raises(ConfigurationError, match=f"network file system .{kind}.*PostgreSQL"):
        connections.checked(f"sqlite:///{share / 'node' / 'm.db'}")
    connections.checked(f"sqlite:///{tmp_path / 'm.db'}")


def test_what_was_mounted_last_counts(tmp_path, monkeypatch):
    mounted(monkeypatch, (tmp_path, "ext4"), (tmp_path, "nfs"))
    with pytest.raises(ConfigurationError, match="nfs"):
        connections.checked(f"sqlite:///{tmp_path / 'm.db'}")
    mounted(monkeypatch, (tmp_path, "nfs"), (tmp_path, "ext4"))
    connections.checked(f"sqlite:///{tmp_path / 'm.db'}")


def test_system_without_a_mount_table_is_trusted(tmp_path, monkeypatch):
    def missing(**_):
        raise FileNotFoundError

    monkeypatch.setattr(psutil, "disk_partitions", missing)
    connections.checked(f"sqlite:///{tmp_path / 'm.db'}")


def test_file_system_of_a_real_mount_point_with_a_space(tmp_path):
    with small_disk(tmp_path / "the share", mib=1) as disk:
        (disk / "node").mkdir()
        assert connections._file_system(disk / "node") == "tmpfs"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:////var/lib/msnode/msnode.db", "/var/lib/msnode/msnode.db"),
        ("postgresql+psycopg://me:secret@db:5433/node", "PostgreSQL database node at db:5433"),
        ("postgresql+psycopg://me@/node?host=a:1&host=b:2", "PostgreSQL database node at a:1, b:2"),
        ("postgresql+psycopg:///node?password=secret", "PostgreSQL database node at the local socket"),
    ],
)
def test_address_in_messages_has_no_password(url, told):
    assert connections.where(sa.make_url(url)) == told


def test_settings_of_the_address_win(postgres):
    url = sa.make_url(postgres.url).update_query_dict(
        {"application_name": "mine", "options": "-c lock_timeout=7s"}
    )
    engine = connections.open_engine(url, kept=1, at_most=1)
    with engine.connect() as connection:
        shown = [
            connection.exec_driver_sql(f"SHOW {n}").scalar() for n in ("application_name", "lock_timeout")
        ]
    engine.dispose()
    assert shown == ["mine", "7s"]


def test_sessions_have_bounds_and_a_name(server_engine):
    names = [
        "application_name", "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout",
        "transaction_isolation", "tcp_keepalives_idle",
    ]  # fmt: skip
    with server_engine.connect() as connection:
        assert [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names] == [
            "msnode", "30s", "1min", "1min", "read committed", "5",
        ]  # fmt: skip


STATES = {
    "57P01": "terminating connection due to administrator command",
    "53300": "sorry, too many clients already",
    "53100": "could not extend file: no space left on device",
    "53200": "out of memory",
    "25006": "cannot execute INSERT in a read-only transaction",
    "40001": "could not serialize access",
    "40P01": "deadlock detected",
    "55P03": "canceling statement due to lock timeout",
    "25P03": "terminating connection due to idle-in-transaction timeout",
    "57014": "canceling statement due to statement timeout",
}


@pytest.mark.parametrize("state", STATES)
def test_what_a_server_cannot_do_now_is_out_of_resources(server_engine, state):
    with pytest.raises(OutOfResources, match=STATES[state][:20]):
        run(
            server_engine,
            f"DO $$ BEGIN RAISE EXCEPTION '{STATES[state]}' USING ERRCODE = '{state}'; END $$",
        )
    run(server_engine, "SELECT 1")


def test_terminated_connection_is_out_of_resources_once(server_engine, postgres):
    def be_terminated():
        with connections.translated(), server_engine.begin() as connection:
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
            postgres.execute(f"SELECT pg_terminate_backend({pid})")
            connection.exec_driver_sql("SELECT 1")

    with pytest.raises(OutOfResources, match="terminat"):
        be_terminated()
    run(server_engine, "SELECT 1")


def test_connection_to_a_server_that_takes_no_writes_is_given_up(server_engine):
    def pid():
        with server_engine.connect() as connection:
            return connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()

    before = pid()
    assert pid() == before
    with pytest.raises(OutOfResources):
        run(server_engine, "DO $$ BEGIN RAISE EXCEPTION 'read-only' USING ERRCODE = '25006'; END $$")
    assert pid() != before


def test_more_threads_than_connections_wait_and_then_give_up(postgres, monkeypatch):
    monkeypatch.setattr(connections, "_POOL_TIMEOUT_S", 0.2)
    engine = connections.open_engine(sa.make_url(postgres.url), kept=1, at_most=2)
    with engine.connect(), engine.connect(), pytest.raises(OutOfResources, match="in use"):
        run(engine, "SELECT 1")
    run(engine, "SELECT 1")
    engine.dispose()


def test_mistake_in_a_statement_stays_one(engine):
    with pytest.raises(sa.exc.DBAPIError, match="nowhere"):
        run(engine, "SELECT * FROM nowhere")


def test_row_that_breaks_a_rule_is_not_told(engine):
    run(engine, PATIENT.insert(), id=NAME)
    with pytest.raises(sa.exc.IntegrityError) as caught:
        run(engine, PATIENT.insert(), id=NAME)
    text = "".join(traceback.format_exception(caught.value))
    assert NAME not in text
    assert "test_row_that_breaks_a_rule_is_not_told" in text


def test_value_that_does_not_fit_is_not_told(server_engine):
    with pytest.raises(sa.exc.DataError, match="22P02") as caught:
        run(server_engine, "SELECT CAST(:it AS TEXT)::INTEGER", it=NAME)
    assert NAME not in "".join(traceback.format_exception(caught.value))


def test_password_reaches_no_message(postgres):
    url = sa.make_url(postgres.url.replace("msnode@", "msnode:hunter2@")).set(database="missing")
    engine = connections.open_engine(url, kept=1, at_most=1)
    with pytest.raises(OutOfResources, match="missing") as caught:
        run(engine, "SELECT 1")
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    with psycopg.connect(postgres.admin_url) as connection:
        seen = connection.execute("SELECT string_agg(query, ' ') FROM pg_stat_activity").fetchone()
    assert "hunter2" not in str(seen)


def test_a_database_belongs_to_its_user_alone(tmp_path):
    before = os.umask(0)
    try:
        path = tmp_path / "m.db"
        engine = connections.open_engine(connections.checked(f"sqlite:///{path}"), kept=1, at_most=1)
        with engine.begin() as tx:
            tx.exec_driver_sql("PRAGMA journal_mode=WAL")
            tx.exec_driver_sql("CREATE TABLE t (x)")
        with engine.begin() as tx:
            tx.exec_driver_sql("INSERT INTO t VALUES (1)")
            modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"m.db": 0o600, "m.db-wal": 0o600, "m.db-shm": 0o600}
    engine.dispose()
    path.chmod(0o644)  # as an older version left it
    with engine.begin():
        assert path.stat().st_mode & 0o777 == 0o600
    engine.dispose()
