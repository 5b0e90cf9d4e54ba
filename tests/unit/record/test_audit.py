import threading

import pytest
import sqlalchemy as sa

from msnode.record import audit, schema


def add(record, event, seconds=0, **facts):
    with record.database.write() as tx:
        audit.append(tx, event, at=record.at(seconds), facts=facts)


@pytest.fixture
def trail(record):
    for number in range(1, 6):
        add(record, "version replaced", number, sop_instance_uid=f"1.2.{number}")
    return record


def verify(record):
    with record.database.read() as tx:
        return audit.verify(tx)


def test_untouched_chain_is_valid_also_when_empty(record):
    assert verify(record) is None
    add(record, "association refused", calling_ae="Ä", count=3, own=True)
    assert verify(record) is None


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ("UPDATE audit SET facts = '{}' WHERE id = 3", 3),
        ("UPDATE audit SET event = 'x' WHERE id = 1", 1),
        ("UPDATE audit SET at = '2025-03-01 12:00:09.000000' WHERE id = 2", 2),
        ("DELETE FROM audit WHERE id = 3", 4),
        ("DELETE FROM audit WHERE id = 1", 2),
    ],
)
def test_every_change_is_found_where_it_begins(trail, change, broken):
    with trail.database.write() as tx:
        tx.exec_driver_sql(change)
    assert verify(trail) == broken


def test_line_put_in_with_a_digest_of_its_own_is_found(trail):
    with trail.database.write() as tx:
        tx.exec_driver_sql("UPDATE audit SET id = id + 1 WHERE id = 5")
        tx.exec_driver_sql("INSERT INTO audit SELECT 5, at, event, facts, 'forged' FROM audit WHERE id = 4")
    assert verify(trail) == 5


def test_lines_added_at_once_by_many_keep_the_chain(record):
    def add_some(thread):
        for number in range(5):
            add(record, "test", thread=thread, number=number)

    threads = [threading.Thread(target=add_some, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify(record) is None
    with record.database.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(schema.audit)).scalar() == 30
