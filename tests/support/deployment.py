"""What the files below deploy/ would run, read with the parsers of their formats."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from support.environment import ROOT

SITE_CONFIG = "/etc/msnode/msnode.toml"
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "K": 2**10, "M": 2**20, "G": 2**30}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Process:
    """One msnode process that a file describes.

    Attributes:
        where: file and name, for people.
        arguments: what follows `msnode` on its command line.
        config: the file that it finds at the path of its configuration; None where nothing lies there.
        environment: variables, secrets filled in as their templates have them.
        stop_s: seconds from SIGTERM to SIGKILL.
        memory_bytes: what it may use, its children included.
        opened: TCP ports through which the file lets senders in, as the process sees them.
        checked: TCP ports that health checks look at.
    """

    where: str
    arguments: tuple[str, ...]
    config: Path | None
    environment: Mapping[str, str]
    stop_s: float
    memory_bytes: int
    opened: frozenset[int] = frozenset()
    checked: frozenset[int] = frozenset()

    @property
    def role(self) -> str | None:
        """What `--role` names; None for the whole node."""
        words = list(self.arguments)
        return words[words.index("--role") + 1] if "--role" in words else None


@dataclass(frozen=True)
class Unit:
    """A systemd unit: section → key → its values in order, as a key may be given more than once."""

    name: str
    sections: Mapping[str, Mapping[str, Sequence[str]]]

    def one(self, section: str, key: str) -> str:
        """The last value of the key, "" where there is none."""
        return ["", *self.sections.get(section, {}).get(key, [])][-1]


def units(deploy: Path) -> dict[str, Unit]:
    """Every unit, by file name."""
    found = {}
    for path in sorted((deploy / "systemd").glob("*.*")):
        if path.suffix in {".service", ".target"}:
            found[path.name] = _unit(path)
    return found


def _unit(path: Path) -> Unit:
    sections: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("["):
            section = line.strip("[]")
            continue
        key, equals, value = line.partition("=")
        if not equals or not section:
            raise ValueError(f"{path.name}: {line!r} is no assignment in a section")
        sections.setdefault(section, {}).setdefault(key, []).append(value)
    return Unit(path.name, sections)


def systemd(deploy: Path) -> list[Process]:
    """One process a service; `%i` is instance 1. Its configuration is a copy of the commented one."""
    found = []
    for unit in units(deploy).values():
        if unit.name.endswith(".service"):
            words = shlex.split(unit.one("Service", "ExecStart").replace("%i", "1"))
            assignments = unit.sections["Service"].get("Environment", [])
            environment = dict(word.split("=", 1) for value in assignments for word in shlex.split(value))
            found.append(
                Process(
                    f"systemd/{unit.name}",
                    tuple(words[1:]),
                    ROOT / "config" / "msnode.toml" if SITE_CONFIG in words else None,
                    environment,
                    _seconds(unit.one("Service", "TimeoutStopSec")),
                    _bytes(unit.one("Service", "MemoryMax")),
                )
            )
    return found


def compose_file(deploy: Path) -> dict[str, Any]:
    """The compose file, anchors resolved."""
    content: dict[str, Any] = yaml.safe_load((deploy / "compose" / "compose.yaml").read_text())
    return content


def compose(deploy: Path) -> list[Process]:
    """One process a service of our image; required variables have the value `from-env`."""
    found = []
    for name, service in compose_file(deploy)["services"].items():
        if not service["image"].startswith("msnode:"):
            continue
        check = " ".join(service.get("healthcheck", {}).get("test", []))
        found.append(
            Process(
                f"compose/compose.yaml: {name}",
                tuple(map(str, service["command"])),
                _mounted(deploy / "compose", service["volumes"]),
                {k: _interpolated(str(v)) for k, v in service["environment"].items()},
                _seconds(service["stop_grace_period"]),
                _bytes(str(service["mem_limit"])),
                frozenset(int(str(p).split(":")[-1]) for p in service.get("ports", [])),
                frozenset(map(int, re.findall(r"\('127\.0\.0\.1', (\d+)\)", check))),
            )
        )
    return found


def _mounted(folder: Path, volumes: Sequence[str]) -> Path | None:
    for volume in volumes:
        source, target, *_ = volume.split(":")
        if target == SITE_CONFIG:
            return folder / source
    return None


def _interpolated(value: str) -> str:
    return re.sub(r"\$\{\w+:\?[^}]*\}", "from-env", value)


@dataclass(frozen=True)
class Cluster:
    """The Kubernetes manifests: documents by file, kustomization apart."""

    folder: Path
    kustomization: Mapping[str, Any]
    documents: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def of_kind(self, *kinds: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """File and document of every object of these kinds."""
        for file, documents in self.documents.items():
            for each in documents:
                if each["kind"] in kinds:
                    yield file, each

    def named(self, kind: str, name: str) -> Mapping[str, Any] | None:
        """The object, where there is one."""
        return next((d for _, d in self.of_kind(kind) if d["metadata"]["name"] == name), None)


def cluster(deploy: Path) -> Cluster:
    """Every manifest of deploy/kubernetes."""
    folder = deploy / "kubernetes"
    documents = {}
    for path in sorted(folder.glob("*.yaml")):
        documents[path.name] = [d for d in yaml.safe_load_all(path.read_text()) if d]
    [kustomization] = documents.pop("kustomization.yaml")
    return Cluster(folder, kustomization, documents)


def kubernetes(manifests: Cluster) -> list[Process]:
    """One process a container of our image."""
    found = []
    for file, deployment in manifests.of_kind("Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        for container in pod["containers"]:
            probes = [container[k] for k in container if k.endswith("Probe")]
            ports = {p["name"]: p["containerPort"] for p in container.get("ports", [])}
            found.append(
                Process(
                    f"kubernetes/{file}: {container['name']}",
                    tuple(container["args"]),
                    _from_config_map(manifests, pod, container),
                    dict(_variables(manifests, container)),
                    pod["terminationGracePeriodSeconds"] - _pre_stop_s(container),
                    _bytes(container["resources"]["limits"]["memory"].removesuffix("i")),
                    _served(manifests, deployment, ports),
                    frozenset(ports.get(p["tcpSocket"]["port"], 0) for p in probes),
                )
            )
    return found


def _from_config_map(manifests: Cluster, pod: Mapping[str, Any], container: Mapping[str, Any]) -> Path | None:
    for mount in container["volumeMounts"]:
        for volume in pod["volumes"]:
            name = volume.get("configMap", {}).get("name")
            if (
                name
                and volume["name"] == mount["name"]
                and mount["mountPath"] == str(Path(SITE_CONFIG).parent)
            ):
                generated = {m["name"]: m["files"] for m in manifests.kustomization["configMapGenerator"]}
                if Path(SITE_CONFIG).name in generated.get(name, []):
                    return manifests.folder / Path(SITE_CONFIG).name
    return None


def _variables(manifests: Cluster, container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for variable in container.get("env", []):
        if "value" in variable:
            yield variable["name"], variable["value"]
            continue
        reference = variable["valueFrom"]["secretKeyRef"]
        secret = manifests.named("Secret", reference["name"]) or {"stringData": {}}
        yield variable["name"], secret["stringData"].get(reference["key"], "")


def _pre_stop_s(container: Mapping[str, Any]) -> float:
    command = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
    return float(command[1])


def _served(manifests: Cluster, deployment: Mapping[str, Any], ports: Mapping[str, int]) -> frozenset[int]:
    """The container's ports behind services that select its pods."""
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    return frozenset(
        ports.get(port["targetPort"], 0)
        for _, service in manifests.of_kind("Service")
        if service["spec"]["selector"].items() <= labels
        for port in service["spec"]["ports"]
    )


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)([a-zA-Z]?)", text)
    return int(found[1]) * _UNITS[found[2]] if found else 0


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)([a-z]?)", text)
    return float(found[1]) * _SECONDS[found[2]] if found else 0.0
