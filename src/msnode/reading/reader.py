"""Reads studies with one bundle under one preset; its networks stay loaded."""

from __future__ import annotations

from functools import cache, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

import msnode
from msnode.domain.provenance import Provenance
from msnode.reading.outcome import ReadingRules
from msnode.reading.pipeline import read_study
from msnode.reading.segment_volume import LesionRules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from msnode.domain.imaging import Series
    from msnode.encode import Replaced
    from msnode.encode.kinds import ResultRules
    from msnode.reading.outcome import Former, Reading
    from msnode.reading.segment_volume import Network
    from msnode.segment.bundle import Bundle
    from msnode.series.select import SelectionRules

_KEPT_READERS = 2
"""Each keeps the networks of a bundle in memory: some hundred MB."""


class Reader:
    """Reads studies with one bundle.

    Args:
        bundle: a verified bundle.
        open_networks: loads and compiles its networks; called once, before the first use.
        selection: limits of the rules that pick the FLAIR.
        results: what a site wants of the result objects.
        settings_digest: SHA-256 over the settings that change results.
    """

    def __init__(
        self,
        bundle: Bundle,
        open_networks: Callable[[], Network],
        *,
        selection: SelectionRules,
        results: ResultRules,
        settings_digest: str,
    ) -> None:
        self.bundle = bundle
        self.networks = cache(open_networks)
        self._settings_digest = settings_digest
        manifest = bundle.manifest
        self._rules = ReadingRules(selection, manifest.scope, LesionRules.of(manifest), results)

    def read(
        self,
        study: Sequence[Series],
        *,
        started_at: datetime,
        revision: int = 0,
        replaced_reports: Mapping[str, str] = MappingProxyType({}),
        former: Former | None = None,
        replaced: Sequence[Replaced] = (),
        asked_for: bool = False,
        remarks: Sequence[str] = (),
    ) -> Reading:
        """Read one study; see `Provenance` and `pipeline.read_study` for the arguments."""
        provenance = Provenance(
            started_at=started_at,
            revision=revision,
            model=self.bundle.identity,
            msnode_version=msnode.__version__,
            runtime="none",
            settings_digest=self._settings_digest,
            replaced_reports=replaced_reports,
        )
        return read_study(
            study, self._rules, provenance, self.networks,
            asked_for=asked_for, former=former, replaced=replaced, remarks=remarks,
        )  # fmt: skip


class Readers:
    """The readers that jobs are routed to; the networks of the two that were used last stay loaded.

    Args:
        open_reader: bundle and preset → their reader.
        bundle: reads where routing named none.
        preset: likewise.
    """

    def __init__(self, open_reader: Callable[[str, str], Reader], bundle: str, preset: str) -> None:
        self._open = lru_cache(maxsize=_KEPT_READERS)(open_reader)
        self._bundle = bundle
        self._preset = preset

    def __call__(self, bundle: str | None = None, preset: str | None = None) -> Reader:
        """The reader for a bundle and a preset, each as configured where it is None.

        Raises:
            ModelError: the bundle is missing or damaged, or names a recipe this version does not have.
            ConfigurationError: the configured device is not there.
        """
        return self._open(bundle or self._bundle, preset or self._preset)
