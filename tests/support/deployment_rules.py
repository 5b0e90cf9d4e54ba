"""What must hold for every file below deploy/; a problem is one sentence that names file and fault."""

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import typer.main
from sqlalchemy import make_url
from typer.core import TyperGroup

from msnode.cli import app
from msnode.cli.serve import Role
from msnode.errors import ConfigurationError
from msnode.settings import _SITE_CONFIG, Settings, load_settings
from msnode.wiring import supervisor
from msnode.wiring.routing import check_routing
from support.deployment import (
    SITE_CONFIG,
    Cluster,
    Process,
    cluster,
    compose,
    compose_file,
    kubernetes,
    systemd,
    units,
)
from support.environment import ROOT

_UsageError = typer.BadParameter.__mro__[1]  # typer shows it under no name of its own
_COMMAND = typer.main.get_command(app)
_OVERHEAD_BYTES = 512 * 2**20
"""What a worker takes beside the reading it watches over."""
_CONFIGURATION = ("msnode.toml", "routing.toml")
_HOST_LENGTH = 40
_POD_SUFFIX = len("-5d4f8c7b96-x2v9k")
_HARDENING = {
    "NoNewPrivileges": "yes", "ProtectSystem": "strict", "PrivateTmp": "yes", "ProtectHome": "yes",
    "CapabilityBoundingSet": "", "User": "msnode", "KillMode": "mixed", "LimitNOFILE": "65536",
}  # fmt: skip
_PLACEHOLDER = re.compile(r"CHANGE-ME|\$\{\w+:\?[^}]*\}")


def problems(deploy: Path) -> list[str]:
    """Everything that is wrong below `deploy`."""
    found = [*_variables(deploy), *_secrets(deploy), *_images(deploy), *_units(deploy), *_compose(deploy)]
    manifests = cluster(deploy)
    found += [*_cluster(manifests), *_dockerfile(deploy, manifests)]
    shapes = {"systemd": systemd(deploy), "compose": compose(deploy), "kubernetes": kubernetes(manifests)}
    for shape, processes in shapes.items():
        found += _roles(shape, processes)
        for process in processes:
            found += _process(process, contained=shape != "systemd")
    return found


def command_problem(arguments: Sequence[str]) -> str | None:
    """Why the command line refuses these arguments of `msnode`, which are parsed and not run."""
    if list(arguments) in (["--help"], ["--version"]):
        return None
    command: Any = _COMMAND
    left = list(arguments)
    while isinstance(command, TyperGroup):
        name = left.pop(0) if left else ""
        if name not in command.commands:
            return f"there is no command {name!r}"
        command = command.commands[name]
    try:
        command.make_context(command.name, left)
    except _UsageError as error:
        return str(error)
    return None


_OF_TESTS = {
    "MSNODE_DATA", "MSNODE_BENCH_BUNDLE", "MSNODE_FAULT", "MSNODE_FAULT_ONCE", "MSNODE_SCREENSHOTS",
}  # fmt: skip
"""Variables that tests and benchmarks read; the pages for developers name them."""


def variable_names() -> set[str]:
    """Every environment variable that sets a key, and the one that names the file."""
    names = {"MSNODE_CONFIG"}
    for section, content in Settings.model_fields.items():
        keys = getattr(content.annotation, "model_fields", {})
        names |= {f"MSNODE_{section}__{key}".upper() for key in keys}
    return names


def settings_of(process: Process) -> Settings:
    """The configuration in force in the process.

    Raises:
        ConfigurationError: it would refuse to start.
    """
    with mock.patch.dict(os.environ, process.environment, clear=True):
        return load_settings(process.config)


def _process(process: Process, *, contained: bool) -> Iterator[str]:
    wrong = command_problem(process.arguments)
    if wrong:
        yield f"{process.where}: msnode {' '.join(process.arguments)}: {wrong}"
        return
    if process.config is None or not process.config.is_file() or Path(SITE_CONFIG) != _SITE_CONFIG:
        yield f"{process.where}: no configuration at {_SITE_CONFIG}"
        return
    try:
        settings = settings_of(process)
        check_routing(settings)
    except ConfigurationError as error:
        yield f"{process.where}: {error}"
        return
    if process.stop_s <= supervisor._STOP_S:
        yield f"{process.where}: killed {process.stop_s} s after SIGTERM, too early"
    reads = process.role in {None, Role.WORKER}
    readings = (settings.node.workers if process.role is None else 1) * reads
    needed = _OVERHEAD_BYTES + readings * settings.model.memory_limit_mb * 2**20
    if process.memory_bytes < needed:
        yield f"{process.where}: killed at {process.memory_bytes >> 20} MiB, before its own limit"
    if contained:
        yield from _contained(process, settings)


def _contained(process: Process, settings: Settings) -> Iterator[str]:
    if make_url(settings.database_url).drivername != "postgresql+psycopg":
        yield f"{process.where}: containers share a PostgreSQL, not {settings.database_url.partition(':')[0]}"
    wanted = {settings.receive.port} if process.role == Role.RECEIVER else set()
    if process.opened != wanted or process.checked != wanted:
        yield (
            f"{process.where}: it listens on {sorted(wanted)}, opened are {sorted(process.opened)} and "
            f"checked {sorted(process.checked)}"
        )
    if settings.receive.address != "0.0.0.0" or not settings.receive.peers:  # noqa: S104 - inside a container
        yield f"{process.where}: nobody outside the container may send"


def _roles(shape: str, processes: Iterable[Process]) -> Iterator[str]:
    roles = {p.role for p in processes}
    for role in Role:
        if role.value not in roles:
            yield f"{shape}: nothing runs the role {role.value}"


def _files(deploy: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(deploy.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            yield str(path.relative_to(deploy)), path.read_text()


def _variables(deploy: Path) -> Iterator[str]:
    for name, text in _files(deploy):
        known = variable_names() | (_OF_TESTS if name.startswith("docs/") else set())
        for variable in sorted(set(re.findall(r"MSNODE_[A-Z0-9_]+", text)) - known):
            yield f"{name}: {variable} names no setting"


def _secrets(deploy: Path) -> Iterator[str]:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for needed in ("/deploy/compose/.env", "/deploy/kubernetes/secret.yaml"):
        if needed not in ignored:
            yield f".gitignore: {needed} could be committed"
    for name, text in _files(deploy):
        if f"/deploy/{name}" in ignored:
            continue
        values = re.findall(r"://[^:/\s]+:([^@\s]+)@", text)
        values += re.findall(r"^\s*\w*(?:password|PASSWORD|token|TOKEN)\s*[:=]\s*(\S.*)$", text, re.MULTILINE)
        for value in values:
            if not _PLACEHOLDER.fullmatch(value):
                yield f"{name}: a secret has a value"


def _units(deploy: Path) -> Iterator[str]:
    found = units(deploy)
    wrapper = (deploy / "systemd" / "msnode").read_text()
    for name, unit in found.items():
        wanted_by = unit.one("Install", "WantedBy")
        if wanted_by != "multi-user.target" and wanted_by not in found:
            yield f"systemd/{name}: wanted by {wanted_by!r}, which is not there"
        if not name.endswith(".service"):
            continue
        if unit.one("Service", "RestartPreventExitStatus") != str(supervisor._MISUSE):
            yield f"systemd/{name}: a refused configuration is started again"
        if unit.one("Service", "Restart") != "always" or unit.one("Unit", "StartLimitIntervalSec") != "0":
            yield f"systemd/{name}: it may stay down"
        for key, value in _HARDENING.items():
            if key not in unit.sections["Service"] or unit.one("Service", key) != value:
                yield f"systemd/{name}: {key} is not {value!r}"
        program, secrets = (
            unit.one("Service", "ExecStart").split()[0],
            unit.sections["Service"]["EnvironmentFile"][0],
        )
        if f"{program} " not in wrapper or f"=EnvironmentFile={secrets} " not in wrapper:
            yield f"systemd/{name}: the wrapper for commands starts another program, or with other secrets"
        if str(Settings().node.data_dir) not in unit.one("Service", "ReadWritePaths").split():
            yield f"systemd/{name}: data_dir cannot be written"


def _images(deploy: Path) -> Iterator[str]:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name, text in _files(deploy):
        for image in re.findall(r"^(?:FROM|\s*(?:- )?image:) (\S+)", text, re.MULTILINE):
            if not re.search(r":\d+\.\d+[\w.-]*$", image):
                yield f"{name}: {image} is not pinned"
        for tag in re.findall(r"\bmsnode:(\d[\w.]*)", text):
            if tag != version:
                yield f"{name}: msnode:{tag} is not this version, {version}"


def _dockerfile(deploy: Path, manifests: Cluster) -> Iterator[str]:
    folder = deploy / "container"
    text, ignore = (folder / "Dockerfile").read_text(), (folder / "Dockerfile.dockerignore").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [*_copied(text, ignore.splitlines()), *_started(text, project["scripts"])]
    for extras in re.findall(r"EXTRAS=(\w[\w,]*)", text):
        unknown = set(extras.split(",")) - project["optional-dependencies"].keys()
        found += [f"there is no extra {extra}" for extra in sorted(unknown)]
    user = re.findall(r"^USER (\d+):\d+$", text, re.MULTILINE)
    for _, deployment in manifests.of_kind("Deployment"):
        wanted = deployment["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
        if user != [str(wanted)] or wanted == 0:
            found.append(f"the image's user is {user}, the cluster runs it as {wanted}")
    yield from (f"container/Dockerfile: {problem}" for problem in found)


def _copied(text: str, ignore: Sequence[str]) -> Iterator[str]:
    copied = [
        s for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for s in line.split()
    ]
    for source in copied:
        if not (ROOT / source).exists():
            yield f"there is no {source}"
        if f"!{source}" not in ignore:
            yield f"{source} is kept out by Dockerfile.dockerignore"
    for constraint in set(re.findall(r"-c (\S+)", text)) - set(copied):
        yield f"{constraint} is not copied"


def _started(text: str, scripts: Iterable[str]) -> Iterator[str]:
    entry = re.findall(r'^ENTRYPOINT \[.*"(\S+)"\]', text, re.MULTILINE)
    if entry != list(scripts):
        yield f"it starts {entry}, not {list(scripts)}"
    for arguments in re.findall(r"^CMD \[(.*)\]", text, re.MULTILINE):
        wrong = command_problem(re.findall(r'"([^"]*)"', arguments))
        if wrong:
            yield f"CMD: {wrong}"


def _compose(deploy: Path) -> Iterator[str]:
    where, content = "compose/compose.yaml", compose_file(deploy)
    published = []
    for name, service in content["services"].items():
        published += [str(p).split(":", 1)[0] for p in service.get("ports", [])]
        if service["restart"] != "unless-stopped":
            yield f"{where}: {name} may stay down"
        config = {v.split(":")[0]: v.split(":")[1] for v in service["volumes"] if v.startswith("./")}
        if config and config != {f"./{each}": f"/etc/msnode/{each}" for each in _CONFIGURATION}:
            yield f"{where}: {name} has not every file of the configuration"
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if not source.startswith("./") and source not in content["volumes"]:
                yield f"{where}: {name}: there is no volume {source}"
        for other in service.get("depends_on", {}):
            if "healthcheck" not in content["services"][other]:
                yield f"{where}: {name} waits for {other}, which has no health check"
    if len(set(published)) != len(published):
        yield f"{where}: one port is published twice"


def _cluster(manifests: Cluster) -> Iterator[str]:
    listed = set(manifests.kustomization["resources"])
    found = [
        f"kustomization.yaml and the folder differ in {file}"
        for file in manifests.documents.keys() ^ listed
        if not file.endswith(".example.yaml")
    ]
    for generated in manifests.kustomization["configMapGenerator"]:
        files = {*generated["files"], *_CONFIGURATION}
        missing = sorted(
            f for f in files if not (manifests.folder / f).is_file() or f not in generated["files"]
        )
        found += [f"there is no {file}" for file in missing]
    for file, claim in manifests.of_kind("PersistentVolumeClaim"):
        if claim["spec"]["accessModes"] != ["ReadWriteMany"]:
            found.append(f"{file}: every pod must be able to write")
    for file, each in manifests.of_kind("Deployment"):
        found += [f"{file}: {wrong}" for wrong in _deployment(manifests, each)]
    yield from (f"kubernetes: {problem}" for problem in [*found, *_selectors(manifests)])


def _selectors(manifests: Cluster) -> Iterator[str]:
    pods = [d["spec"]["template"]["metadata"] for _, d in manifests.of_kind("Deployment", "StatefulSet")]
    for file, each in manifests.of_kind("Service", "PodDisruptionBudget", "Deployment", "StatefulSet"):
        selector = each["spec"]["selector"]
        wanted = selector.get("matchLabels", selector).items()
        if not any(wanted <= pod["labels"].items() for pod in pods):
            yield f"{file}: {each['kind']} selects no pod"


def _deployment(manifests: Cluster, deployment: Any) -> Iterator[str]:
    name, pod = deployment["metadata"]["name"], deployment["spec"]["template"]["spec"]
    if len(name) + _POD_SUFFIX > _HOST_LENGTH:
        yield f"pods of {name} have host names that differ after {_HOST_LENGTH} characters only"
    if pod["enableServiceLinks"] or pod["automountServiceAccountToken"]:
        yield f"{name} gets variables or a token that it has no use for"
    for volume in pod["volumes"]:
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim and manifests.named("PersistentVolumeClaim", claim) is None:
            yield f"there is no claim {claim}"
    for container in pod["containers"]:
        context = container["securityContext"]
        if context["allowPrivilegeEscalation"] or not context["readOnlyRootFilesystem"]:
            yield f"{name} may do more than it needs"
        for variable in container["env"]:
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            secret = reference and manifests.named("Secret", reference["name"])
            if reference and (secret is None or reference["key"] not in secret["stringData"]):
                yield f"there is no secret {reference['name']} with the key {reference['key']}"
