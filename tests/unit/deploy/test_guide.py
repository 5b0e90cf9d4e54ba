"""What the pages for administrators and developers claim is so."""

import pytest

from support.deployment_guide import command_lines, guide_problems, msnode_arguments
from support.environment import ROOT

DOCS = ROOT / "deploy" / "docs"
GUIDE = DOCS / "operations.md"
README = ROOT / "README.md"
PAGES = [README, ROOT / "deploy" / "viewer" / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_agrees_with_the_program(page):
    assert guide_problems(page, page.read_text()) == []


def test_the_readme_is_short_and_leads_to_every_page():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert all(f"({page.relative_to(ROOT)})" in text for page in PAGES if page != README)


def test_the_commands_are_found():
    found = [arguments for line in command_lines(GUIDE.read_text()) if (arguments := msnode_arguments(line))]
    assert ["status"] in found
    assert ["jobs", "retry", "--failed"] in found
    assert len(found) > 15


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("msnode jobs show 7    # why", ["jobs", "show", "7"]),
        ("sudo msnode status", ["status"]),
        ("/opt/msnode/bin/msnode config check", ["config", "check"]),
        ("kubectl -n msnode exec deploy/msnode-sender -- msnode status", ["status"]),
        ("docker compose -f x/compose.yaml exec sender msnode status", ["status"]),
        ("systemctl start msnode", None),
        ("kubectl -n msnode get pods", None),
    ],
)
def test_a_line_that_calls_msnode_is_known(line, arguments):
    assert msnode_arguments(line) == arguments


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("`msnode status`", "`msnode state`", "there is no command 'state'"),
        ("msnode jobs retry --failed", "msnode jobs retry --all", "No such option: --all"),
        ("exec sender msnode status", "exec sender msnode health", "there is no command 'health'"),
        ("`retry.limit`", "`retry.tries`", "retry.tries is no setting"),
        ('ae_title = "MSNODE"', 'aet = "MSNODE"', "a configuration that is refused"),
        ("| `queued` |", "| `waiting` |", "JobState are"),
        ("| `dead` |", "| `lost` |", "DeliveryState are"),
        ("| `workflow_dead` |", "| `workflow_lost` |", "nothing logs 'workflow_lost'"),
        ("(#the-disk-is-full)", "(#disk-full)", "there is no heading #disk-full"),
        ("(conformance.md)", "(dicom.md)", "there is no dicom.md"),
        ("deploy/systemd/msnode.tmpfiles", "deploy/systemd/tmpfiles", "there is no deploy/systemd/tmpfiles"),
        ("msnode-worker@1", "msnode-reader@1", "there is no unit msnode-reader@"),
    ],
)
def test_what_is_no_longer_so_is_found(old, new, says):
    text = GUIDE.read_text()
    assert old in text
    problems = guide_problems(GUIDE, text.replace(old, new))
    assert any(says in problem for problem in problems), problems
