"""Housekeeping every ten minutes."""

from types import SimpleNamespace

import pytest

from msnode.services import upkeep
from msnode.services.upkeep import Upkeep


@pytest.fixture
def done(monkeypatch):
    """What was done, in order."""
    found = []
    monkeypatch.setattr(upkeep, "remove_old", lambda *_, **__: found.append("removed") or 0)
    return found


def made(done, days, clock):
    store = SimpleNamespace(sweep=lambda **_: done.append("swept"))
    engine = SimpleNamespace(forget_finished=lambda _: done.append("forgotten"))
    return Upkeep(None, store, engine, days, clock)


def test_it_is_due_at_once_and_then_every_ten_minutes(done):
    moments = [0.0]
    one = made(done, 30, lambda: moments[0])
    for now in (0.0, 5.0, 599.0, 601.0, 700.0, 1202.0):
        moments[0] = now
        one.run_if_due()
    assert done == ["swept", "forgotten", "removed"] * 3


def test_received_bytes_are_kept_for_ever_where_the_site_says_so(done):
    made(done, 0, lambda: 0.0).run_if_due()
    assert done == ["swept", "forgotten"]
