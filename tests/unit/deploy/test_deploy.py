"""The files below deploy/ agree with the program; mutations show that they could not stop doing so unseen."""

import shutil
import subprocess
from pathlib import Path

import pytest

from msnode.cli import serve
from support import deployment_rules
from support.deployment import cluster, compose, kubernetes, systemd, units
from support.deployment_rules import command_problem, problems, settings_of, variable_names
from support.environment import ROOT

DEPLOY = ROOT / "deploy"


def test_deploy_agrees_with_the_program():
    assert problems(DEPLOY) == []


def test_every_process_has_its_configuration():
    for processes in (systemd(DEPLOY), compose(DEPLOY), kubernetes(cluster(DEPLOY))):
        assert len(processes) >= 3
        assert {settings_of(p).node.ae_title for p in processes} == {"MSNODE"}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of deploy/ to spoil."""
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    return tmp_path / "deploy"


MUTATIONS = [
    # roles and options
    ("systemd/msnode-worker@.service", "--role worker", "--role reader", "'reader' is not one of"),
    ("systemd/msnode-sender@.service", "--instance", "--number", "No such option: --number"),
    ("compose/compose.yaml", "[serve, --role, sender]", "[run, --role, sender]", "there is no command 'run'"),
    ("compose/compose.yaml", "[serve, --role, sender]", "[serve, --role, worker]", "runs the role sender"),
    ("kubernetes/worker.yaml", "--role, worker]", "--role, worker, --gpu]", "No such option: --gpu"),
    ("container/Dockerfile", 'CMD ["serve"]', 'CMD ["start"]', "there is no command 'start'"),
    # keys and variables
    ("compose/compose.yaml", "NODE__DATABASE_URL", "NODE__DB_URL", "MSNODE_NODE__DB_URL names no setting"),
    ("docs/operations.md", "MSNODE_NODE__DATABASE_URL", "MSNODE_DATABASE_URL", "names no setting"),
    ("compose/msnode.toml", "ae_title", "aet", "unknown key"),
    ("kubernetes/msnode.toml", "[[destinations]]", "[[destination]]", "unknown key"),
    ("kubernetes/msnode.toml", 'data_dir = "/var/lib/msnode"', "data_dir = 1", "data_dir"),
    ("compose/routing.toml", "# Rules", "[[rule]]\n# Rules", "line 1: rule: unknown key"),
    ("compose/compose.yaml", ":/etc/msnode/routing.toml", ":/etc/routing.toml", "not every file"),
    ("kubernetes/kustomization.yaml", ", routing.toml", "", "there is no routing.toml"),
    ("compose/compose.yaml", "postgresql+psycopg://", "sqlite:////", "share a PostgreSQL"),
    ("compose/compose.yaml", ":/etc/msnode/msnode.toml:ro", ":/etc/msnode.toml:ro", "no configuration at"),
    ("kubernetes/worker.yaml", "mountPath: /etc/msnode,", "mountPath: /config,", "no configuration at"),
    # ports
    ("compose/msnode.toml", "port = 11112", "port = 104", "listens on [104]"),
    ("compose/compose.yaml", '"11113:11112"', '"11112:11112"', "published twice"),
    ("kubernetes/receiver.yaml", "containerPort: 11112", "containerPort: 104", "listens on [11112]"),
    ("kubernetes/receiver.yaml", "targetPort: dicom", "targetPort: dimse", "opened are [0]"),
    ("kubernetes/msnode.toml", "[receive]\naddress", "[receive]\n# address", "nobody outside"),
    (
        "kubernetes/receiver.yaml",
        "component: receiver}\n  ports:",
        "component: x}\n  ports:",
        "selects no pod",
    ),
    # lives and limits
    ("systemd/msnode.service", "RestartPreventExitStatus=2", "RestartPreventExitStatus=1", "started again"),
    ("systemd/msnode-receiver@.service", "Restart=always", "Restart=no", "may stay down"),
    ("systemd/msnode-receiver@.service", "TimeoutStopSec=30", "TimeoutStopSec=10", "too early"),
    ("systemd/msnode-worker@.service", "MemoryMax=8G", "MemoryMax=4G", "before its own limit"),
    ("compose/compose.yaml", "stop_grace_period: 30s", "stop_grace_period: 10s", "too early"),
    ("compose/compose.yaml", "mem_limit: 8g", "mem_limit: 6g", "before its own limit"),
    ("kubernetes/receiver.yaml", "PeriodSeconds: 40", "PeriodSeconds: 20", "too early"),
    ("kubernetes/worker.yaml", "memory: 8Gi", "memory: 5Gi", "before its own limit"),
    ("systemd/msnode.service", "ProtectSystem=strict", "", "ProtectSystem is not"),
    ("systemd/msnode", "/opt/msnode/bin/msnode", "/usr/bin/msnode", "starts another program"),
    # secrets and images
    ("compose/compose.yaml", "${POSTGRES_PASSWORD:?set it in .env}", "swordfish", "a secret has a value"),
    ("kubernetes/secret.example.yaml", "password: CHANGE-ME", "password: swordfish", "a secret has a value"),
    ("kubernetes/secret.example.yaml", "msnode:CHANGE-ME@", "msnode:swordfish@", "a secret has a value"),
    ("compose/compose.yaml", "postgres:15.18-bookworm", "postgres:latest", "is not pinned"),
    ("kubernetes/sender.yaml", "image: msnode:", "image: msnode:9.", "is not this version"),
    ("docs/operations.md", "-t msnode:", "-t msnode:9.", "is not this version"),
    ("container/Dockerfile", "FROM python:3.11.15-slim-bookworm\n", "FROM python\n", "is not pinned"),
    # what names what
    ("container/Dockerfile", "COPY src/msnode", "COPY source/msnode", "there is no source/msnode"),
    ("container/Dockerfile", "EXTRAS=gpu", "EXTRAS=cuda", "there is no extra cuda"),
    ("container/Dockerfile", '"msnode"]', '"msn"]', "it starts ['msn']"),
    ("container/Dockerfile", "USER 10001:10001", "USER 0:0", "the image's user is ['0']"),
    ("container/Dockerfile.dockerignore", "!src/msnode", "!src", "src/msnode is kept out"),
    ("kubernetes/kustomization.yaml", "  - worker.yaml\n", "", "differ in worker.yaml"),
    ("kubernetes/receiver.yaml", "name: msnode-database", "name: msnode-db", "there is no secret msnode-db"),
    ("kubernetes/storage.yaml", "name: msnode-data", "name: data", "there is no claim msnode-data"),
    ("kubernetes/storage.yaml", "ReadWriteMany", "ReadWriteOnce", "must be able to write"),
    ("kubernetes/sender.yaml", "enableServiceLinks: false", "enableServiceLinks: true", "no use for"),
    (
        "systemd/msnode-sender@.service",
        "WantedBy=msnode.target",
        "WantedBy=node.target",
        "which is not there",
    ),
]


@pytest.mark.parametrize(
    ("file", "old", "new", "says"), MUTATIONS, ids=[f"{m[0]}: {m[3]}" for m in MUTATIONS]
)
def test_what_no_longer_agrees_is_found(copy, file, old, new, says):
    path = copy / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert any(says in problem for problem in problems(copy)), problems(copy)


def test_a_role_that_was_renamed_in_the_program_is_found(monkeypatch):
    monkeypatch.setattr(serve.Role.SENDER, "_value_", "courier")
    monkeypatch.setattr(deployment_rules, "command_problem", lambda _arguments: None)
    assert "compose: nothing runs the role courier" in problems(DEPLOY)


def test_a_key_that_was_renamed_in_the_program_is_found(monkeypatch):
    left = variable_names() - {"MSNODE_NODE__DATABASE_URL"}
    monkeypatch.setattr(deployment_rules, "variable_names", lambda: left)
    assert any("MSNODE_NODE__DATABASE_URL names no setting" in problem for problem in problems(DEPLOY))


def test_commands_are_parsed_and_not_run():
    assert command_problem(["jobs", "show", "7"]) is None
    assert command_problem(["jobs", "show", "seven"]) is not None
    assert command_problem([]) == "there is no command ''"


def test_systemd_itself_reads_the_units(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here: apt-get install systemd")
    folder, program = tmp_path / "etc/systemd/system", tmp_path / "opt/msnode/bin/msnode"
    shutil.copytree(DEPLOY / "systemd", folder)
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    names = [name.replace("@.", "@1.") for name in units(DEPLOY)]
    command = [analyze, "verify", f"--root={tmp_path}", "--man=no", "--recursive-errors=no"]
    done = subprocess.run([*command, *names], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    unit = folder / "msnode.service"
    unit.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=mixt"))
    done = subprocess.run([*command, unit.name], capture_output=True, text=True, timeout=60, check=False)
    assert "kill mode" in done.stderr
