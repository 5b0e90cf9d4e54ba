import sqlite3
import threading
import traceback
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from msnode.engine.tables import create_tables
from msnode.errors import ConfigurationError, OutOfResources
from msnode.record import database as database_module
from msnode.record import schema
from msnode.record.database import Database, clock_skew, lock, upgrade


def tables(record):
    with record.database.read() as tx:
        return {table for name in sa.inspect(tx).get_schema_names() for table in tables_in(tx, name)}


def tables_in(tx, name):
    return set() if name == "information_schema" else set(sa.inspect(tx).get_table_names(schema=name))


def version(record):
    with record.database.read() as tx:
        return tx.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def together(count, function):
    """Run it so often at once; what failed is raised."""
    errors = []

    def run():
        try:
            function()
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_models_and_migrations_agree(record):
    with record.database.write() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


def test_a_model_without_its_migration_would_be_noticed(own_record):
    with own_record.database.write() as tx:
        tx.exec_driver_sql("ALTER TABLE job DROP COLUMN runtime")
        differences = compare_metadata(MigrationContext.configure(tx), schema.metadata)
    assert [(d[0], d[2], d[3].name) for d in differences] == [("add_column", "job", "runtime")]


def test_upgrading_again_keeps_what_is_there(record):
    record.add()
    upgrade(record.url)
    assert len(record.jobs()) == 1


def test_processes_that_start_at_once_make_the_tables_once(blank_url):
    def start():
        upgrade(blank_url)
        create_tables(blank_url)

    together(4, start)
    database = Database(blank_url)
    with database.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(schema.job)).scalar() == 0
    database.close()


def test_database_of_a_newer_version_is_refused_and_left_alone(own_record):
    with own_record.database.write() as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigurationError, match=r"newer msnode .*9999"):
        upgrade(own_record.url)
    assert version(own_record) == "9999"


BROKEN = """
import sqlalchemy as sa
from alembic import op

revision = "9000"
down_revision = "HEAD"


def upgrade() -> None:
    op.create_table("half", sa.Column("id", sa.Integer(), primary_key=True))
    op.add_column("job", sa.Column("half", sa.Integer()))
    op.execute("UPDATE job SET runtime = 'half'")
    op.execute("INSERT INTO nowhere VALUES (1)")
"""


@pytest.fixture
def broken_migration(tmp_path, monkeypatch):
    """A migration more, which fails after it has made a table, a column and a row."""
    there = database_module._MIGRATIONS
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    for path in [*there.glob("*.*"), *there.glob("versions/*.py")]:
        (folder / path.relative_to(there)).write_bytes(path.read_bytes())
    head = max(path.name[:4] for path in folder.glob("versions/0*.py"))
    (folder / "versions" / "9000_broken.py").write_text(BROKEN.replace("HEAD", head))

    def become_newer():
        monkeypatch.setattr(database_module, "_MIGRATIONS", folder)

    return become_newer


def test_migration_that_fails_leaves_the_database_as_it_was(own_record, broken_migration):
    own_record.add()
    before, its_tables, its_version = own_record.jobs(), tables(own_record), version(own_record)
    broken_migration()
    with pytest.raises(sa.exc.DBAPIError, match="nowhere"):
        upgrade(own_record.url)
    assert (own_record.jobs(), tables(own_record), version(own_record)) == (before, its_tables, its_version)
    with own_record.database.read() as tx:
        assert compare_metadata(MigrationContext.configure(tx), schema.metadata) == []
    own_record.add(2)


def test_engine_tables_lie_beside_the_record_and_share_no_name(own_record):
    own = tables(own_record)
    create_tables(own_record.url)
    upgrade(own_record.url)
    assert tables(own_record) > own
    assert "workflow_status" in tables(own_record) - own
    assert not {name for name in own if name.startswith("workflow")}


def test_engine_tables_may_come_first(blank_url):
    create_tables(blank_url)
    upgrade(blank_url)
    database = Database(blank_url)
    assert database.has_tables()
    database.close()


def test_database_without_tables_is_known_and_not_made_by_looking(blank_url, tmp_path):
    database = Database(blank_url)
    assert not database.has_tables()
    assert not (tmp_path / "m.db").exists()
    upgrade(blank_url)
    assert database.has_tables()
    database.close()


def test_sqlite_commits_are_durable_unless_told_otherwise_and_check_references(own_record, tmp_path):
    def settings(**how):
        names = ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        with own_record.database.write(**how) as tx:
            if tx.dialect.name == "postgresql":
                return tx.exec_driver_sql("SHOW synchronous_commit").scalar()
            return [tx.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    full, normal = 2, 1
    expected = (
        (["wal", normal, 30000, 1], ["wal", full, 30000, 1]) if (tmp_path / "m.db").exists() else ("on", "on")
    )
    assert (settings(durable=False), settings()) == expected


def test_block_that_raises_leaves_nothing(record):
    def abandon():
        with record.database.write() as tx:
            tx.execute(schema.patient.insert().values(issuer="", patient_id="1"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        abandon()
    with record.database.read() as tx:
        assert tx.execute(sa.select(schema.patient)).all() == []


def test_reading_does_not_wait_for_a_writer(record):
    with record.database.write() as tx:
        tx.execute(schema.patient.insert().values(issuer="", patient_id="1"))
        with record.database.read() as other:
            assert other.execute(sa.select(schema.patient)).all() == []


def test_reading_is_one_view_whatever_is_committed_meanwhile(record):
    with record.database.read() as tx:
        assert tx.execute(sa.select(schema.patient)).all() == []
        with record.database.write() as other:
            other.execute(schema.patient.insert().values(issuer="", patient_id="1"))
        assert tx.execute(sa.select(schema.patient)).all() == []


def test_lock_keeps_other_transactions_out_until_the_end(record):
    numbers = schema.patient.c.patient_id

    def count_up():
        with record.database.write() as tx:
            lock(tx, "study 1.2.3")
            number = int(tx.execute(sa.select(sa.func.max(sa.cast(numbers, sa.Integer)))).scalar() or 0)
            tx.execute(schema.patient.insert().values(issuer="", patient_id=str(number + 1)))

    together(6, lambda: [count_up() for _ in range(5)])
    with record.database.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(schema.patient)).scalar() == 30


def test_mistake_in_a_statement_stays_one_and_tells_no_patient_data(own_record):
    with own_record.database.write() as tx:
        tx.exec_driver_sql("DROP TABLE correction")

    def write():
        with own_record.database.write() as tx:
            tx.execute(
                schema.correction.insert().values(
                    case_id=1, tracking_uid="SECRET^NAME", made_at=own_record.at(), kind="x", content={}
                )
            )

    with pytest.raises(sa.exc.DBAPIError, match="correction") as caught:
        write()
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


def test_full_sqlite_file_is_out_of_resources_until_there_is_room(tmp_path):
    path = tmp_path / "m.db"
    upgrade(f"sqlite:///{path}")
    database = Database(f"sqlite:///{path}")

    def write(content):
        with database.write() as tx:
            size = tx.exec_driver_sql("PRAGMA page_count").scalar() + 10
            tx.exec_driver_sql(f"PRAGMA max_page_count = {size}")
            for number in range(10):
                tx.execute(schema.patient.insert().values(issuer=content, patient_id=str(number)))

    with pytest.raises(OutOfResources, match="full"):
        write("x" * 100_000)
    write("x")
    database.close()


def test_locked_sqlite_file_is_out_of_resources(tmp_path, monkeypatch):
    monkeypatch.setattr(database_module.connections, "BUSY_TIMEOUT_MS", 50)
    path = tmp_path / "m.db"
    upgrade(f"sqlite:///{path}")
    database = Database(f"sqlite:///{path}")

    def write():
        with database.write():
            pass

    with sqlite3.connect(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutOfResources, match="locked"):
            write()
    other.close()
    write()
    database.close()


def test_record_on_a_server_that_is_gone_for_a_while(own_postgres):
    url = own_postgres.new_database()
    upgrade(url)
    database = Database(url)

    def write(number):
        with database.write() as tx:
            tx.execute(schema.patient.insert().values(issuer="", patient_id=str(number)))

    def write_and_lose_the_server():
        with database.write() as tx:
            tx.execute(schema.patient.insert().values(issuer="", patient_id="lost"))
            own_postgres.stop()

    write(1)
    with pytest.raises(OutOfResources):
        write_and_lose_the_server()
    with pytest.raises(OutOfResources, match="refused"):
        write(2)
    with pytest.raises(OutOfResources), database.read():
        pass
    own_postgres.start()
    write(3)
    with database.read() as tx:
        assert set(tx.execute(sa.select(schema.patient.c.patient_id)).scalars()) == {"1", "3"}
    database.close()


def test_times_come_back_aware_and_naive_ones_are_refused(record):
    record.add(seconds=5)
    assert record.job().created_at == record.at(5)
    assert record.job().created_at.tzinfo is not None
    with pytest.raises(sa.exc.StatementError, match="time zone"):
        record.add(2, received_at=datetime(2025, 3, 1))  # noqa: DTZ001 - the mistake under test


def test_the_skew_of_two_clocks_that_agree_is_none(record):
    with record.database.read() as tx:
        assert clock_skew(tx) == timedelta(0)


def test_a_machine_whose_clock_is_wrong_goes_by_the_servers(record, monkeypatch):
    """SQLite has no other clock."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=5)

    monkeypatch.setattr("msnode.record.database.datetime", Ahead)
    expected = timedelta(hours=5 if record.url.startswith("sqlite") else 0)
    ahead = record.database.now() - datetime.now(UTC)
    assert abs(ahead - expected) < timedelta(hours=1)
