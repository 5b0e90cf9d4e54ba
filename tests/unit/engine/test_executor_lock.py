import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from msnode.engine import connections, executor_lock
from msnode.engine.executor_lock import ExecutorLocks
from support.peers import wait_until


def locks_of(url):
    engine = connections.open_engine(sa.make_url(url), kept=1, at_most=2)
    return engine, ExecutorLocks(engine)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("postgres").url
    return f"sqlite:///{tmp_path / 'm.db'}"


@pytest.fixture
def locks(url):
    engine, locks = locks_of(url)
    yield locks
    engine.dispose()


@pytest.fixture
def server_locks(own_postgres):
    engine, locks = locks_of(own_postgres.url)
    yield locks
    engine.dispose()


def test_one_holder_at_a_time(locks, url):
    engine, others = locks_of(url)
    mine, theirs = locks.of("a"), others.of("a")
    assert mine.acquire(0)
    assert mine.is_settled()
    assert not theirs.acquire(0.3)
    assert not others.is_free("a")
    assert others.is_free("b")
    mine.release()
    assert others.is_free("a")
    assert theirs.acquire(0)
    theirs.release()
    engine.dispose()


def test_looking_does_not_take_the_lock(locks):
    assert locks.is_free("a")
    with locks.borrowed("a") as first:
        assert first
        assert not locks.is_free("a")
        with locks.borrowed("a") as second:
            assert not second
    assert locks.is_free("a")


def test_names_of_different_executors_are_different_locks(locks):
    with locks.borrowed("a") as one, locks.borrowed("b") as other:
        assert one
        assert other


def test_lock_is_held_again_after_the_server_came_back(server_locks, own_postgres):
    lock = server_locks.of("a")
    assert lock.acquire(0)
    with capture_logs() as logs:
        own_postgres.stop()
        wait_until(lambda: not lock.is_settled(), what="loss noticed")
        own_postgres.start()
        wait_until(lambda: any(line["event"] == "executor_lock_regained" for line in logs), what="held again")
    assert not server_locks.is_free("a")
    assert not lock.is_settled(), "the others may need a moment more"
    assert [line["event"] for line in logs] == ["executor_lock_lost", "executor_lock_regained"]
    lock.release()
    assert server_locks.is_free("a")


def test_lock_that_another_took_meanwhile_is_asked_for_until_it_is_free(
    server_locks, own_postgres, monkeypatch
):
    def said(event):
        return any(line["event"] == event for line in logs)

    monkeypatch.setattr(executor_lock, "_WATCH_S", 1.0)
    lock = server_locks.of("a")
    assert lock.acquire(0)
    engine, others = locks_of(own_postgres.url)
    theirs = others.of("a")
    with capture_logs() as logs:
        own_postgres.execute(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        )
        assert theirs.acquire(0)
        wait_until(lambda: said("executor_lock_held_elsewhere"), what="said so")
        theirs.release()
        wait_until(lambda: said("executor_lock_regained"), what="held again")
    assert {line["log_level"] for line in logs if "elsewhere" in line["event"]} == {"error"}
    lock.release()
    engine.dispose()


def test_lock_can_be_let_go_while_the_server_is_gone(server_locks, own_postgres):
    lock = server_locks.of("a")
    assert lock.acquire(0)
    own_postgres.stop()
    lock.release()
    own_postgres.start()
    assert server_locks.is_free("a")
