"""The command line's promises: help everywhere, exit codes, one line for an error, JSON for reads."""

import json

import pytest
import typer.main
from typer.core import TyperGroup

from msnode.cli import app
from msnode.record.database import upgrade
from msnode.settings import load_settings
from support.node import dicom_destination, msnode, write_config
from support.peers import free_port


def commands(group, path=()):
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command.load()


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_the_commands_are_those_of_the_readme():
    assert {" ".join(path) for path in COMMANDS} == {
        "serve", "demo", "echo", "study segment", "status", "jobs list", "jobs show", "jobs hurry",
        "jobs retry", "jobs cancel",
        "model train", "model evaluate", "model compare", "model export", "model list", "model show",
        "config check", "config show", "config test-route",
    }  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_and_option_has_help(path):
    command = COMMANDS[path]
    assert command.help
    for parameter in command.params:
        assert parameter.help, f"{path}: {parameter.name}"


@pytest.fixture
def config(tmp_path):
    (tmp_path / "data").mkdir()
    return write_config(tmp_path, dicom_destination("pacs", "NOBODY", free_port()), port=free_port())


def test_a_right_configuration_is_exit_0(config):
    done = msnode("config", "check", "--config", config, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"valid": True, "destinations": ["pacs"], "routing": None, "rules": []}
    assert (
        json.loads(msnode("config", "show", "--config", config, "--json").stdout)["node"]["ae_title"]
        == "MSNODE"
    )


def test_a_database_password_is_never_shown(tmp_path):
    url = "postgresql+psycopg://node:s3cret@db.example/msnode"
    path = write_config(tmp_path, "", port=0, database_url=url)
    for options in ([], ["--json"]):
        done = msnode("config", "show", "--config", path, *options)
        assert done.returncode == 0
        assert "s3cret" not in done.stdout
        assert "postgresql+psycopg://node:***@db.example/msnode" in done.stdout


def test_the_node_at_rest_needs_nobody(config, tmp_path):
    settings = load_settings(config)
    upgrade(settings.database_url)
    done = msnode("status", "--config", config, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"jobs": {}, "oldest_waiting_s": None, "alarms": []}


def test_retry_wants_a_number_or_all_that_failed(config):
    upgrade(load_settings(config).database_url)
    assert msnode("jobs", "retry", "--config", config).returncode == 2
    assert msnode("jobs", "retry", "5", "--failed", "--config", config).returncode == 2
    done = msnode("jobs", "retry", "--failed", "--config", config)
    assert (done.returncode, done.stdout) == (0, "0 jobs retried\n")


@pytest.mark.parametrize("command", [["config", "check"], ["serve"], ["jobs", "list"]], ids=" ".join)
def test_a_wrong_configuration_is_exit_2_and_one_line(config, command):
    config.write_text(config.read_text() + "\n[nonsense]\nx = 1\n")
    done = msnode(*command, "--config", config)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [f"msnode: {config}: nonsense: unknown key"]


@pytest.mark.parametrize("command", [["serve"], ["serve", "--role", "receiver"]], ids=" ".join)
def test_wrong_rules_are_exit_2_and_one_line(config, command):
    rules = config.with_name("routing.toml")
    rules.write_text(
        '[[rules]]\nname = "a"\npreset = "slow"\n\n[[rules]]\nname = "b"\ndestinations = ["pax"]\n'
    )
    done = msnode(*command, "--config", config)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"msnode: {rules}: line 3: rules.1.preset: ")
    assert "; line 5: rules.2: can never be reached" in line
    assert "; line 7: rules.2.destinations: no destination 'pax' is configured" in line


def test_a_port_that_is_taken_ends_the_node_with_one_line(config, orthanc):
    text = config.read_text()
    start = text.index("port = ")
    end = text.index("\n", start)
    config.write_text(f"{text[:start]}port = {orthanc.dicom_port}{text[end:]}")
    done = msnode("serve", "--config", config)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("msnode: ")]
    assert str(orthanc.dicom_port) in lines[0]


@pytest.mark.parametrize(
    ("setting", "says"),
    [('bundle = "absent"', "model.bundle: no bundle 'absent'"), ('device = "cuda"', "no CUDA device")],
)
def test_a_model_that_is_not_there_ends_the_node(config, setting, says, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config.write_text(f"{config.read_text()}\n[model]\n{setting}\n")
    done = msnode("serve", "--config", config)
    assert done.returncode == 2
    assert any(says in line for line in done.stderr.splitlines() if line.startswith("msnode: "))


def test_echo_says_that_nobody_is_there(config):
    done = msnode("echo", "pacs", "--config", config)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    unknown = msnode("echo", "pax", "--config", config)
    assert unknown.returncode == 2
    assert "configured: pacs" in unknown.stderr


def test_echo_says_what_the_destination_takes(tmp_path, orthanc):
    (tmp_path / "data").mkdir()
    config = write_config(
        tmp_path, dicom_destination("pacs", orthanc.aet, orthanc.dicom_port), port=free_port()
    )
    done = msnode("echo", "pacs", "--config", config, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["refusals"] == {}


def test_jobs_of_a_node_that_never_ran(config):
    done = msnode("jobs", "list", "--config", config)
    assert done.returncode == 2
    assert "there is no record" in done.stderr


def test_the_shipped_bundle_is_listed_and_sound():
    (bundle,) = json.loads(msnode("model", "list", "--json").stdout)
    assert bundle["name"] == "msnode-flair2d"
    shown = msnode("model", "show", "msnode-flair2d", "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["recipe"] == bundle["recipe"]
