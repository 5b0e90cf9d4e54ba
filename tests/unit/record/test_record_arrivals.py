import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from msnode.record import schema
from msnode.record.arrivals import Arrivals
from msnode.record.database import Database
from msnode.record.jobs import JobState


def waiting(record):
    (study,) = record.arrivals.waiting_studies()
    return study


def rows(record, table):
    with record.database.read() as tx:
        return tx.execute(sa.select(table)).all()


def test_first_instance_makes_a_waiting_job(record):
    record.open()
    record.add(1, seconds=1)
    record.add(2, seconds=2)
    study = waiting(record)
    assert (study.study_instance_uid, study.job_id, study.revision) == ("1.1", 1, 0)
    (series,) = study.series
    assert series.slice_positions_mm == (6.5, 13.0)
    assert (series.instance_count, series.last_at, series.interrupted) == (2, record.at(2), False)
    assert study.open_associations == 1
    assert [j.state for j in record.jobs()] == [JobState.RECEIVING]


def test_same_bytes_again_add_no_row_but_are_a_sign_of_life(record):
    first = record.add(1, seconds=1)
    record.add(1, seconds=9)
    assert len(rows(record, schema.instance)) == 1
    assert waiting(record).series[0].last_at == record.at(9)
    assert record.arrivals.latest_digest(first.sop_instance_uid) == first.digest


def test_other_bytes_become_the_latest_version_and_the_former_is_kept(record):
    first, second = record.add(1), record.add(1, content="corrected")
    assert record.arrivals.latest_digest("1.2.3.1") == second.digest
    assert record.arrivals.known_digests() == {first.digest, second.digest}
    (stored,) = record.arrivals.study_instances("1.1")
    assert (stored.sop_instance_uid, stored.series_instance_uid) == ("1.2.3.1", "1.2.1")
    assert stored.digest == second.digest
    assert waiting(record).series[0].instance_count == 1


def test_former_bytes_sent_again_are_the_latest_again(record):
    first = record.add(1)
    record.add(1, content="corrected")
    record.add(1)
    assert record.arrivals.latest_digest("1.2.3.1") == first.digest
    assert len(rows(record, schema.instance)) == 3


def test_unknown_instance_has_no_digest(record):
    assert record.arrivals.latest_digest("9.9") is None


def test_instance_without_a_plane_counts_but_has_no_position(record):
    record.add(1, slice_position_mm=None, frame_count=40)
    assert waiting(record).series[0].slice_positions_mm == ()
    assert waiting(record).series[0].instance_count == 1


@pytest.mark.parametrize("end", ["abort", "lost at start", "row lost"])
def test_cut_off_association_interrupts_the_series_that_it_brought_last(record, end):
    if end != "row lost":
        record.open("a1")
    record.add(1)
    if end == "abort":
        record.abort("a1")
    elif end == "lost at start":
        assert record.arrivals.close_open_associations(at=record.at(50)) == 1
    assert waiting(record).series[0].interrupted
    assert waiting(record).open_associations == 0


def test_resend_of_the_same_bytes_on_a_released_association_clears_the_interruption(record):
    record.open("a1")
    record.add(1)
    record.abort("a1")
    record.open("a2")
    record.add(1, association_id="a2", seconds=120)
    assert not waiting(record).series[0].interrupted
    assert waiting(record).open_associations == 1
    record.release("a2")
    assert not waiting(record).series[0].interrupted


def test_interruption_of_one_series_leaves_the_other_alone(record):
    record.open("a1")
    record.open("a2")
    record.add(1, association_id="a1", series_instance_uid="1.2.1")
    record.add(2, association_id="a2", series_instance_uid="1.2.2")
    record.abort("a1")
    record.release("a2")
    assert [s.interrupted for s in waiting(record).series] == [True, False]


def test_open_associations_of_other_studies_do_not_count(record):
    record.open("a1")
    record.open("a2")
    record.add(1, association_id="a1")
    record.add(2, association_id="a2", study_instance_uid="1.9", series_instance_uid="1.9.1")
    assert [s.open_associations for s in record.arrivals.waiting_studies()] == [1, 1]


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.CANCELLED, JobState.PASSED_OVER])
def test_new_content_after_receiving_is_a_revision(record, state):
    record.add(1)
    record.move(state)
    record.add(1)
    assert [j.revision for j in record.jobs()] == [0], "the same bytes are no new content"
    record.add(2)
    record.add(3)
    assert [(j.revision, j.state) for j in record.jobs()] == [(0, state), (1, JobState.RECEIVING)]
    assert waiting(record).revision == 1
    assert waiting(record).series[0].instance_count == 3, "a revision reads the whole study"


def test_other_version_after_receiving_is_a_revision(record):
    record.add(1)
    record.move(JobState.QUEUED)
    record.add(1, content="corrected")
    assert [j.revision for j in record.jobs()] == [0, 1]


def test_own_objects_never_start_extend_or_revise_a_job(record):
    record.add(1, own=True, series_instance_uid="1.2.9")
    assert record.jobs() == ()
    record.open("a1")
    record.release("a1")
    record.add(2, seconds=1)
    record.open("a2")
    record.add(3, own=True, series_instance_uid="1.2.9", association_id="a2", seconds=50)
    study = waiting(record)
    assert [s.series_instance_uid for s in study.series] == ["1.2.1"]
    assert (study.open_associations, study.last_at) == (0, record.at(1))
    record.move(JobState.QUEUED)
    record.add(4, own=True, series_instance_uid="1.2.9")
    assert len(record.jobs()) == 1
    assert [i.sop_instance_uid for i in record.arrivals.study_instances("1.1")] == ["1.2.3.2"]


def test_results_are_known_as_output(record):
    record.delivering()
    assert record.arrivals.is_output("2.25.1")
    assert not record.arrivals.is_output("1.2.3.1")


def test_study_belongs_to_the_patient_whom_its_latest_instance_names(record):
    record.add(1)
    record.add(1, content="merged", patient_key=("HOSPITAL", "4712"))
    patients = {row.id: row.patient_id for row in rows(record, schema.patient)}
    (study,) = rows(record, schema.study)
    assert sorted(patients.values()) == ["4711", "4712"]
    assert patients[study.patient_key] == "4712"


def test_one_patient_id_of_two_issuers_is_two_patients(record):
    record.add(1)
    record.add(2, study_instance_uid="1.9", patient_key=("", "4711"))
    assert len(rows(record, schema.patient)) == 2


def test_one_series_uid_under_two_studies_stays_apart(record):
    record.add(1)
    record.add(2, study_instance_uid="1.9")
    assert [s.series[0].instance_count for s in record.arrivals.waiting_studies()] == [1, 1]


def test_threads_of_one_receiver_add_at_once(record):
    start = threading.Barrier(8)

    def add(sender):
        start.wait()
        for number in range(10):
            record.add(100 * sender + number)
            record.add(number)  # every sender brings these as well

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(1, 9)))
    assert len(record.jobs()) == 1
    assert waiting(record).series[0].instance_count == 90


def _add_many(url, arrivals, start):
    database = Database(url)
    start.wait()
    for arrival in arrivals:
        Arrivals(database).add(arrival)
    database.close()


def test_two_processes_add_at_once(record):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    shared = [record.arrival(number) for number in range(20)]
    processes = []
    for extra in (100, 200):
        arrivals = shared + [record.arrival(extra + number) for number in range(20)]
        processes.append(context.Process(target=_add_many, args=(record.url, arrivals, start)))
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0, 0]
    assert len(rows(record, schema.instance)) == 60
    assert len(record.jobs()) == 1
