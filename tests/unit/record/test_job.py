import dataclasses

import pytest

from msnode.record.job import TRANSITIONS, JobState


def test_every_state_has_its_transitions_and_is_reached():
    assert set(TRANSITIONS) == set(JobState)
    assert set().union(*TRANSITIONS.values()) == set(JobState) - {JobState.RECEIVING}


def test_job_is_a_snapshot(record):
    record.add()
    job = record.job()
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.state = JobState.QUEUED
    assert job.evolve(reason="x") != job == record.job()
