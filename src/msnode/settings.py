"""The configuration: reads `msnode.toml` into `Settings` and validates it before anything starts.

Every key has a default and is described in `config/msnode.toml`; unknown keys are errors. Environment
variables override keys: `MSNODE_RECEIVE__PORT=11113` sets `port` in `[receive]`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from msnode.errors import ConfigurationError

AeTitle = Annotated[
    str, Field(min_length=1, max_length=16, pattern=r"^[!-\[\]-~](?:[ -\[\]-~]*[!-\[\]-~])?$")
]
"""PS3.5 6.2, VR AE: 1-16 characters, no backslash or control character, no leading or trailing space."""

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0, le=86400)]
ObjectKind = Literal[
    "seg", "sr", "sr-comprehensive", "sr-enhanced", "overlay", "summary", "pdf", "probability", "ko"
]
_USUAL_OBJECTS: tuple[ObjectKind, ...] = ("seg", "sr", "overlay", "summary")
_DAY_S = 86400
Verify = Literal["commitment", "find", "none"]
"""How storage of an object is confirmed: storage commitment, C-FIND, or not at all."""
Preset = Literal["fast", "standard", "best"]
"""What a bundle reads with: its first fold; all folds; all folds and mirrored images."""

_SITE_CONFIG = Path("/etc/msnode/msnode.toml")
_ROUTING = "routing.toml"
_MOVED = {"priority.stat": 'moved to routing.toml: use a rule with priority = "stat"'}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeSettings(_Section):
    """`[node]`: identity, storage and processes of the node."""

    ae_title: AeTitle = "MSNODE"
    data_dir: Path = Path("/var/lib/msnode")
    database_url: str | None = None
    host: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] | None = None
    workers: int = Field(default=1, ge=1, le=64)
    senders: int = Field(default=1, ge=1, le=64)
    routing: Path | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "text"] = "json"


class ReportAddress(_Section):
    """`commitment` of a peer: the address for its storage commitment reports."""

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]


class PeerSettings(_Section):
    """`[[receive.peers]]`: a sender that may open associations."""

    ae_title: AeTitle
    addresses: tuple[IPvAnyNetwork, ...] = Field(min_length=1)
    commitment: ReportAddress | None = None


class ReceiveSettings(_Section):
    """`[receive]`: the storage SCP."""

    address: str = "127.0.0.1"
    port: Port = 11112
    peers: tuple[PeerSettings, ...] = ()
    also_accept: tuple[str, ...] = ()
    max_associations: int = Field(default=40, ge=1, le=1000)
    max_associations_per_address: int = Field(default=20, ge=1, le=1000)
    network_timeout_s: Seconds = 60
    min_free_mb: int = Field(default=1024, ge=0)


class CompletenessSettings(_Section):
    """`[completeness]`: when a study is considered complete."""

    series_quiet_s: Seconds = 10
    study_quiet_s: Seconds = 60
    after_release_s: Seconds = 5
    revision_quiet_s: Seconds = 120
    interrupted_quiet_s: Seconds = 600


class SelectionSettings(_Section):
    """`[selection]`: limits and order of preference of the FLAIR selection."""

    min_slices: int = Field(default=10, ge=3)
    prefer: tuple[Literal["axial-2d", "3d", "other-2d"], ...] = ("axial-2d", "3d", "other-2d")
    after_contrast: bool = False
    reformats: bool = False


class ModelSettings(_Section):
    """`[model]`: the bundle, its preset, the device and the limits of a reading."""

    bundle: str = "msnode-flair2d"
    bundles_dir: Path | None = None
    preset: Preset = "standard"
    mark_below_confidence: float = Field(default=0.5, ge=0, le=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=0, ge=0)
    cache_dir: Path | None = None
    time_limit_s: Annotated[float, Field(gt=0)] = 900
    memory_limit_mb: int = Field(default=6000, ge=500)
    attempts: int = Field(default=3, ge=1, le=10)


class ResultsSettings(_Section):
    """`[results]`: the form of the result objects."""

    segmentation: Literal["lesions", "single", "labelmap"] = "lesions"
    descriptions: dict[ObjectKind, Annotated[str, Field(min_length=1, max_length=64)]] = {}


class RetentionSettings(_Section):
    """`[retention]`: when received instances are deleted; 0 keeps them forever."""

    received_days: Annotated[float, Field(ge=0)] = 30


class PrioritySettings(_Section):
    """`[priority]`: when waiting raises an alarm. Routing rules decide what is read first."""

    alarm_after_s: Annotated[float, Field(gt=0)] = 1800


class RetrySettings(_Section):
    """`[retry]`: how often and after which delays a delivery is retried."""

    first_s: Annotated[float, Field(gt=0)] = 5
    factor: Annotated[float, Field(ge=1)] = 2
    max_s: Annotated[float, Field(gt=0)] = 900
    limit: int = Field(default=120, ge=1)


class DicomDestination(_Section):
    """`[[destinations]]` with `type = "dicom"`: a C-STORE peer."""

    type: Literal["dicom"] = "dicom"
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    ae_title: AeTitle
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    objects: tuple[ObjectKind, ...] = Field(default=_USUAL_OBJECTS, min_length=1)
    verify: Verify = "commitment"
    commitment_deadline_s: Annotated[float, Field(gt=0, le=30 * _DAY_S)] = _DAY_S
    concurrency: int = Field(default=2, ge=1, le=32)


class FolderDestination(_Section):
    """`[[destinations]]` with `type = "folder"`: files in a folder."""

    type: Literal["folder"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    path: Path
    objects: tuple[ObjectKind, ...] = Field(default=_USUAL_OBJECTS, min_length=1)
    concurrency: int = Field(default=1, ge=1, le=32)


class DicomWebDestination(_Section):
    """`[[destinations]]` with `type = "dicomweb"`: STOW-RS."""

    type: Literal["dicomweb"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$")]
    objects: tuple[ObjectKind, ...] = Field(default=_USUAL_OBJECTS, min_length=1)
    verify: Literal["find", "none"] = "find"
    concurrency: int = Field(default=2, ge=1, le=32)


class Settings(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="MSNODE_", env_nested_delimiter="__"
    )

    node: NodeSettings = NodeSettings()
    receive: ReceiveSettings = ReceiveSettings()
    completeness: CompletenessSettings = CompletenessSettings()
    selection: SelectionSettings = SelectionSettings()
    model: ModelSettings = ModelSettings()
    results: ResultsSettings = ResultsSettings()
    retry: RetrySettings = RetrySettings()
    retention: RetentionSettings = RetentionSettings()
    priority: PrioritySettings = PrioritySettings()
    destinations: tuple[
        Annotated[DicomDestination | FolderDestination | DicomWebDestination, Field(discriminator="type")],
        ...,
    ] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment overrides file, file overrides defaults; there are no other sources."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [d.name for d in self.destinations]
        for each in self.destinations:
            if names.count(each.name) > 1:
                raise ValueError(f"destinations: the name {each.name!r} is used twice; names must be unique")
            reports = [kind for kind in each.objects if kind.startswith("sr")]
            if len(reports) > 1:
                forms = " and ".join(reports)
                raise ValueError(
                    f"destinations: {each.name!r} lists {forms}, forms of the same report: keep one"
                )
        return self

    @property
    def host(self) -> str:
        """This machine's name in executor ids: lower-case letters, digits and hyphens."""
        name = self.node.host or socket.gethostname()
        return re.sub(r"[^a-z0-9-]", "-", name.lower())[:40]

    @property
    def database_url(self) -> str:
        """URL of the database; by default a file in `data_dir`."""
        return self.node.database_url or f"sqlite:///{self.node.data_dir.absolute() / 'msnode.db'}"

    @property
    def results_digest(self) -> str:
        """SHA-256 of the settings that change results (64 hex digits)."""
        values = {
            "selection": self.selection.model_dump(mode="json"),
            "model": self.model.model_dump(mode="json", include={"preset", "mark_below_confidence"}),
            "results": self.results.model_dump(mode="json"),
        }
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def with_preset(settings: Settings, preset: Preset | None) -> Settings:
    """The settings with another preset; unchanged if `preset` is None."""
    if preset is None:
        return settings
    return settings.model_copy(update={"model": settings.model.model_copy(update={"preset": preset})})


def load_settings(path: Path | None = None) -> Settings:
    """Load `path`, else $MSNODE_CONFIG, else /etc/msnode/msnode.toml, else the defaults.

    Unless the settings name a file with routing rules, routing.toml next to the file applies if it exists.

    Raises:
        ConfigurationError: the file is missing or not valid TOML, or a key is unknown or has a wrong value;
            the message names the file, the key and the allowed values.
    """
    named = path or (Path(os.environ["MSNODE_CONFIG"]) if os.environ.get("MSNODE_CONFIG") else None)
    source = named or (_SITE_CONFIG if _SITE_CONFIG.exists() else None)
    values = _read(source) if source else {}
    try:
        settings = Settings(**values)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigurationError(f"{source or 'defaults'}: {_explain(error)}") from None
    beside = source and source.with_name(_ROUTING)
    if beside is None or settings.node.routing is not None or not beside.exists():
        return settings
    return settings.model_copy(update={"node": settings.node.model_copy(update={"routing": beside})})


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from None


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        key = ".".join(str(part) for part in item["loc"])
        unknown = item["type"] == "extra_forbidden"
        message = _MOVED.get(key, "unknown key") if unknown else item["msg"]
        lines.append(f"{key}: {message}" if key else message)
    return "; ".join(lines)
