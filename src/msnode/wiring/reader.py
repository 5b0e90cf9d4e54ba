"""From the configured model and a set of instances to a result set; for the worker's child and the CLI."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msnode
from msnode import crash_points
from msnode.domain.provenance import Provenance
from msnode.errors import AmbiguousSelection, InvalidTransition, NotReadable
from msnode.preprocess import recipes
from msnode.preprocess.brain import LearnedBrain
from msnode.reading.outcome import ReadingRules
from msnode.reading.pipeline import read_study
from msnode.reading.result_set import describe, read_result, write_result_set
from msnode.record import jobs
from msnode.segment.bundle import BRAIN, find_bundle, load_bundle
from msnode.segment.predict import Predictor
from msnode.series.volume import group_series
from msnode.wiring.destinations import result_rules
from msnode.wiring.folder import instances_below
from msnode.wiring.model import bundle_folders, cache_folder, user_cache
from msnode.wiring.revisions import former_reading, past_of, replaced_revisions, stored_study
from msnode.wiring.routing import selection_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from msnode.domain.imaging import Prediction, Prepared, Series
    from msnode.encode import Replaced
    from msnode.preprocess.brain import Extractor
    from msnode.reading.outcome import Former, Reading
    from msnode.record.arrivals import Arrivals
    from msnode.record.database import Database
    from msnode.record.jobs import Job
    from msnode.segment.bundle import Bundle
    from msnode.settings import Settings
    from msnode.store import Store

_KEPT_READERS = 2
"""Each keeps the networks of a bundle in memory: some hundred MB."""


@dataclass(frozen=True, eq=False)
class BundleNetwork:
    """A bundle's networks, ready to run.

    Attributes:
        lesions: the bundle's own.
        extract: the brain network of the bundle within it; None where the recipe strips no skull.
    """

    lesions: Predictor
    extract: Extractor | None

    @property
    def runtime_name(self) -> str:
        """What runs them and in which precision."""
        return self.lesions.runtime_name

    def predict(self, prepared: Prepared) -> Prediction:
        """Probability and spread of lesions on the prepared grid."""
        return self.lesions.predict(prepared)


def open_network(bundle: Bundle, open_predictor: Callable[[Bundle], Predictor]) -> BundleNetwork:
    """Load a bundle's networks, the brain's too where its recipe strips the skull.

    Args:
        bundle: a verified bundle.
        open_predictor: how to open one bundle: device, preset, folds.

    Raises:
        ModelError: the bundle of the brain network is missing or damaged, or names an unknown recipe.
        ConfigurationError: the device is not there.
    """
    extract = None
    if recipes.get(bundle.manifest.recipe).strips_skull:
        brain = load_bundle(bundle.path / BRAIN, recipes.names())
        prepare = recipes.get(brain.manifest.recipe).apply
        extract = LearnedBrain(prepare, open_predictor(brain).predict, recipes.restore)
    return BundleNetwork(open_predictor(bundle), extract)


class Reader:
    """Reads studies with the bundle and under the preset of the settings; the bundle stays loaded.

    Args:
        settings: what is in force.
        cache: where compiled networks are kept, unless the settings name a folder; by default in data_dir.

    Raises:
        ModelError: the bundle is missing or damaged, or names a recipe this version does not have.
        ConfigurationError: the configured device is not there.
    """

    def __init__(self, settings: Settings, *, cache: Path | None = None) -> None:
        self._settings = settings
        self._cache = cache or settings.node.data_dir / "cache"
        self.bundle = load_bundle(
            find_bundle(settings.model.bundle, bundle_folders(settings)), recipes.names()
        )
        manifest = self.bundle.manifest
        self._network: BundleNetwork | None = None
        self._rules = ReadingRules(
            selection=selection_rules(settings),
            recipe=manifest.recipe,
            scope=manifest.scope,
            threshold=manifest.threshold,
            min_volume_mm3=manifest.min_volume_mm3,
            calibration=manifest.calibration,
            results=result_rules(settings),
        )

    def predictor(self) -> BundleNetwork:
        """The networks, compiled at the first call."""
        if self._network is None:
            model = self._settings.model
            open_predictor = partial(
                Predictor,
                device=model.device,
                threads=model.threads or None,
                preset=model.preset,
                cache_dir=cache_folder(self._settings, self._cache),
            )
            self._network = open_network(self.bundle, open_predictor)
        return self._network

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
    ) -> Reading:
        """Read one study; see `Provenance` and `reading.pipeline.read_study` for the arguments."""
        provenance = Provenance(
            started_at=started_at,
            revision=revision,
            model=self.bundle.identity,
            msnode_version=msnode.__version__,
            runtime="none",
            settings_digest=self._settings.results_digest,
            replaced_reports=replaced_reports,
        )
        return read_study(
            study, self._rules, provenance, self.predictor,
            asked_for=asked_for, former=former, replaced=replaced,
        )  # fmt: skip


class Readers:
    """The readers that jobs are routed to; the networks of the two that were used last stay loaded.

    Args:
        settings: what is in force; their bundle and preset read where routing named none.
        cache: see `Reader`.
    """

    def __init__(self, settings: Settings, *, cache: Path | None = None) -> None:
        self._settings = settings
        self._open = lru_cache(maxsize=_KEPT_READERS)(partial(_open_reader, settings, cache))

    def __call__(self, bundle: str | None = None, preset: str | None = None) -> Reader:
        """The reader for a bundle and a preset, each as configured where it is None.

        Raises:
            ModelError, ConfigurationError: see `Reader`.
        """
        model = self._settings.model
        return self._open(bundle or model.bundle, preset or model.preset)


def _open_reader(settings: Settings, cache: Path | None, bundle: str, preset: str) -> Reader:
    model = settings.model.model_copy(update={"bundle": bundle, "preset": preset})
    return Reader(settings.model_copy(update={"model": model}), cache=cache)


def read_job(
    readers: Callable[[str | None, str | None], Reader],
    database: Database,
    arrivals: Arrivals,
    store: Store,
    job_id: int,
) -> dict[str, Any]:
    """Read the study of a job and commit its result set, unless an earlier attempt did.

    Args:
        readers: bundle and preset that the job was routed to → what reads it; see `Readers`.
        database: the record.
        arrivals: what there is of the study.
        store: holds its bytes, and the result sets.
        job_id: a job that was started.

    Returns:
        What `result.json` of the set holds, with the set's key under "result_set"; where there is
        nothing to deliver (passed over, unchanged) no set is committed.

    Raises:
        MsnodeError: see `Readers` and `Reader.read`; Rejected too, where not even a report can be made.
    """
    with database.read() as tx:
        job = jobs.find(tx, job_id)
    if job is None:
        raise InvalidTransition(f"there is no job {job_id}")
    key = f"job-{job.id}-{job.revision}"
    if not store.has_set(key):
        crash_points.reach("reading-began", job.study_instance_uid)
        reader = readers(job.bundle, job.preset)
        reading = _read(reader, database, arrivals, store, job)
        if not reading.outputs:
            return describe(reading, ())
        with store.new_set(key) as folder:
            write_result_set(reading, folder)
            crash_points.reach("result-written", job.study_instance_uid)
        crash_points.reach("result-committed", job.study_instance_uid)
    return read_result(store.set_path(key)) | {"result_set": key}


def _read(reader: Reader, database: Database, arrivals: Arrivals, store: Store, job: Job) -> Reading:
    if job.started_at is None:
        raise InvalidTransition(f"job {job.id} was never started")
    with database.read() as tx:
        past = past_of(tx, job)
    study, removed = stored_study(arrivals.study_instances(job.study_instance_uid), store)
    if not study:
        raise NotReadable("; ".join(removed.values()) or "nothing is stored of this study")
    return reader.read(
        study,
        started_at=job.started_at,
        revision=job.revision,
        replaced_reports=past.reports,
        former=former_reading(past, store, removed),
        replaced=replaced_revisions(past, store),
        asked_for=bool(job.asked_for),
    )


def read_folder(path: Path, out: Path, settings: Settings) -> dict[str, Any]:
    """Read the one study in the files below `path`; write its result set to `out`.

    Raises:
        NotReadable: no DICOM file, or a DICOM file that is damaged.
        AmbiguousSelection: files of several studies.
    """
    instances = instances_below(path)
    study = group_series(instances)
    studies = {s.study_instance_uid for s in study}
    if len(studies) > 1:
        raise AmbiguousSelection(f"{path} holds {len(studies)} studies; give the folder of one")
    newest = max(i.path.stat().st_mtime for i in instances)
    reader = Reader(settings, cache=user_cache())
    reading = reader.read(study, started_at=datetime.fromtimestamp(int(newest), UTC), asked_for=True)
    return write_result_set(reading, out)
