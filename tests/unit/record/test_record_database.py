import sqlite3
from datetime import datetime

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from msnode.engine import create_tables
from msnode.errors import ConfigurationError, OutOfResources
from msnode.record import schema
from msnode.record.database import Database, sqlite_path, upgrade


def tables(record):
    with record.database.read() as tx:
        return set(sa.inspect(tx).get_table_names())


def test_models_and_migrations_agree(record):
    with record.database.write() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


def test_a_model_without_its_migration_would_be_noticed(record):
    with record.database.write() as tx:
        tx.exec_driver_sql("ALTER TABLE job DROP COLUMN runtime")
        differences = compare_metadata(MigrationContext.configure(tx), schema.metadata)
    assert [(d[0], d[2], d[3].name) for d in differences] == [("add_column", "job", "runtime")]


def test_upgrading_again_keeps_what_is_there(record):
    record.add()
    upgrade(record.url)
    assert len(record.jobs()) == 1


def test_database_of_a_newer_version_is_refused_and_left_alone(record):
    with record.database.write() as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigurationError, match=r"newer msnode .*9999"):
        upgrade(record.url)


def test_engine_tables_lie_beside_the_record_and_share_no_name(record):
    own = set(schema.metadata.tables)
    create_tables(record.url)
    upgrade(record.url)
    assert tables(record) > own
    assert "workflow_status" in tables(record) - own


def test_engine_tables_may_come_first(tmp_path):
    url = f"sqlite:///{tmp_path / 'm.db'}"
    create_tables(url)
    upgrade(url)
    with sqlite3.connect(tmp_path / "m.db") as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    assert {"job", "workflow_status"} <= names


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("postgresql+psycopg://msnode:secret@db/msnode", "postgresql.psycopg is not tested"),
        ("sqlite://", "missing or relative"),
        ("sqlite:///msnode.db", "missing or relative"),
        ("msnode.db", "not a URL"),
    ],
)
def test_what_is_no_absolute_sqlite_file_is_refused(url, complaint):
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        sqlite_path(url)
    assert "secret" not in str(caught.value)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no folder .*nowhere"):
        Database(f"sqlite:///{tmp_path / 'nowhere' / 'm.db'}")


def test_commits_are_durable_unless_told_otherwise_and_check_references(record):
    def pragmas(**how):
        with record.database.write(**how) as tx:
            names = ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
            return [tx.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    full, normal = 2, 1
    assert pragmas(durable=False) == ["wal", normal, 30000, 1]
    assert pragmas() == ["wal", full, 30000, 1]


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


def test_database_trouble_is_out_of_resources_without_patient_data(record):
    with record.database.write() as tx:
        tx.exec_driver_sql("DROP TABLE correction")

    def write():
        with record.database.write() as tx:
            tx.execute(
                schema.correction.insert().values(
                    case_id=1, tracking_uid="SECRET^NAME", made_at=record.at(), kind="x", content={}
                )
            )

    with pytest.raises(OutOfResources, match="no such table") as caught:
        write()
    assert "SECRET" not in str(caught.value)


def test_times_come_back_aware_and_naive_ones_are_refused(record):
    record.add(seconds=5)
    assert record.job().created_at == record.at(5)
    assert record.job().created_at.tzinfo is not None
    with pytest.raises(sa.exc.StatementError, match="time zone"):
        record.add(2, received_at=datetime(2025, 3, 1))  # noqa: DTZ001 - the mistake under test
