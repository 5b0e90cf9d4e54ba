from datetime import UTC, datetime
from types import SimpleNamespace

from rich.table import Table

from msnode.cli.console import SafeConsole
from msnode.cli.jobs_list import _row
from msnode.cli.jobs_show import _deliveries
from msnode.record.delivery import DeliveryState


def test_what_a_peer_says_is_shown_as_it_is():
    owed = SimpleNamespace(
        destination="pacs",
        result=SimpleNamespace(kind="overlay"),
        state=DeliveryState.PENDING,
        attempts=2,
        status=0xA700,
        next_try_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        note="full [/bold] [red]",
    )
    console = SafeConsole()
    console.width = 200
    with console.capture() as captured:
        console.print(_deliveries(SimpleNamespace(deliveries=[owed, owed])))
    assert "2 overlay" in captured.get()
    assert "0xA700" in captured.get()
    assert "full [/bold] [red]" in captured.get()


def test_a_list_of_jobs_obeys_nothing_that_a_sender_wrote(capsys):
    job = SimpleNamespace(
        id=1, revision=0, state="failed", state_since=datetime(2026, 1, 2, tzinfo=UTC), lesion_count=None,
        lesion_volume_mm3=None, study_instance_uid="1.2", reason="[/red] \x1b[2J",
    )  # fmt: skip
    table = Table(*"abcdefgh", box=None)
    table.add_row(*_row(job))
    console = SafeConsole()
    console.width = 200
    console.print(table)
    shown = capsys.readouterr().out
    assert "[/red] \\x1b[2J" in shown
    assert "\x1b" not in shown
