import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest
import sqlalchemy as sa

from msnode.domain.arrivals import AssociationFacts
from msnode.errors import OutOfResources
from msnode.record import audit, schema
from msnode.record.arrivals import Arrivals
from msnode.record.database import Database
from msnode.record.job import JobState
from msnode.record.waiting import WaitingStudies


def all_waiting(record):
    return WaitingStudies(record.database).due(record.at(10_000))


def waiting(record):
    (study,) = all_waiting(record)
    return study


def rows(record, table):
    with record.database.read() as tx:
        return tx.execute(sa.select(table)).all()


def stored(record, study="1.1"):
    """SOP Instance UID → digest of the latest version."""
    return {i.sop_instance_uid: i.digest for i in record.arrivals.study_instances(study)}


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
    assert stored(record) == {first.sop_instance_uid: first.digest}


def test_other_bytes_become_the_latest_version_and_the_former_is_kept(record):
    first, second = record.add(1), record.add(1, content="corrected")
    assert stored(record) == {"1.2.3.1": second.digest}
    assert {(r.digest, r.superseded) for r in rows(record, schema.instance)} == {
        (first.digest, True),
        (second.digest, False),
    }
    assert waiting(record).series[0].instance_count == 1
    (line,) = rows(record, schema.audit)
    assert (line.event, first.digest in line.facts) == ("instance_new_version", True)


def test_other_bytes_that_were_not_compared_with_the_latest_are_not_recorded(record):
    first = record.add(1)
    other = record.arrival(1, content="corrected")
    beside = record.arrival(2)
    assert record.arrivals.add(other, beside) == {"1.2.3.1": first.digest}
    assert record.arrivals.add(replace(other, replaces="ab" * 32)) == {"1.2.3.1": first.digest}
    assert stored(record) == {"1.2.3.1": first.digest, "1.2.3.2": beside.digest}
    assert rows(record, schema.audit) == []


def test_former_bytes_sent_again_are_the_latest_again(record):
    first = record.add(1)
    record.add(1, content="corrected")
    record.add(1)
    assert stored(record) == {"1.2.3.1": first.digest}
    assert len(rows(record, schema.instance)) == 3


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
        assert record.arrivals.close_open_associations("", at=record.at(50)) == 1
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
    assert [s.open_associations for s in all_waiting(record)] == [1, 1]


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


def test_what_this_node_made_is_its_own_whatever_the_header_says(record):
    record.delivering()
    record.add(9, sop_instance_uid="2.25.1", series_instance_uid="2.25.9", seconds=300)
    assert {r.sop_instance_uid: r.own for r in rows(record, schema.instance)} == {
        "1.2.3.1": False,
        "2.25.1": True,
    }
    assert len(record.jobs()) == 1


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
    assert [s.series[0].instance_count for s in all_waiting(record)] == [1, 1]


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


def test_a_batch_is_recorded_in_one_go(record):
    record.open("a1")
    record.open("a2")
    first = record.add(1)
    kept = []
    batch = [
        record.arrival(1, seconds=5),
        record.arrival(2, seconds=4),
        record.arrival(3, association_id="a2", study_instance_uid="1.9", seconds=6),
        record.arrival(4, association_id="a2", study_instance_uid="1.9", patient_key=("", "0815"), seconds=7),
        record.arrival(5, own=True, study_instance_uid="1.9", series_instance_uid="1.9.9", seconds=8),
    ]
    assert record.arrivals.add(*batch, keep_bytes=lambda a: kept.append(a.digest)) == {}
    assert kept == [first.digest], "only of what is recorded already may bytes have been removed"
    one, other = all_waiting(record)
    assert (one.study_instance_uid, one.series[0].instance_count, one.open_associations) == ("1.1", 2, 1)
    assert one.last_at == record.at(5)
    assert (other.study_instance_uid, len(other.series), other.series[0].instance_count) == ("1.9", 1, 2)
    assert len(rows(record, schema.instance)) == 5
    assert stored(record)["1.2.3.1"] == first.digest
    patients = {p.id: p.patient_id for p in rows(record, schema.patient)}
    whose = {s.study_instance_uid: patients[s.patient_key] for s in rows(record, schema.study)}
    assert whose == {"1.1": "4711", "1.9": "0815"}


def test_nothing_of_a_batch_is_recorded_whose_bytes_cannot_be_kept(record):
    def full(_):
        raise OutOfResources("full")

    record.add(1)
    with pytest.raises(OutOfResources):
        record.arrivals.add(record.arrival(1), record.arrival(2), keep_bytes=full)
    assert len(rows(record, schema.instance)) == 1


def test_each_receiver_closes_its_own_associations(record):
    for name in ("receiver-a", "receiver-b"):
        arrivals = Arrivals(record.database, receiver=name)
        arrivals.association_opened(AssociationFacts(name, "MR", "MSNODE", "10.0.0.7", record.at()))
    with record.database.write() as tx:
        change = schema.association.insert().values(
            association_id="of 0.2.0", calling_ae="MR", called_ae="MSNODE", address="10.0.0.7",
            opened_at=record.at(),
        )  # fmt: skip
        tx.execute(change)
    assert record.arrivals.open_receivers() == {"receiver-a", "receiver-b"}
    assert record.arrivals.close_open_associations("receiver-a", at=record.at(9)) == 2
    assert record.arrivals.open_receivers() == {"receiver-b"}
    still_open = [r.association_id for r in rows(record, schema.association) if r.closed_at is None]
    assert still_open == ["receiver-b"]


def test_bytes_taken_by_retention_come_back_with_the_instance(record):
    record.add(1)
    record.move(JobState.CANCELLED)
    with record.database.write() as tx:
        tx.execute(schema.instance.update().values(removed_at=record.at(5000)))
    assert record.arrivals.study_instances("1.1")[0].removed_at == record.at(5000)
    record.add(1, seconds=6000)
    assert record.arrivals.study_instances("1.1")[0].removed_at is None
    assert [j.state for j in record.jobs()] == [JobState.CANCELLED, JobState.RECEIVING]


def test_refused_bytes_are_dropped_where_no_version_has_them(record):
    known = record.add(1)
    other = record.arrival(1, content="other pixels")
    dropped = []
    record.arrivals.refuse(other, known.digest, drop_bytes=lambda: dropped.append(other.digest))
    record.arrivals.refuse(known, known.digest, drop_bytes=lambda: dropped.append(known.digest))
    assert dropped == [other.digest]
    assert [r.event for r in rows(record, schema.audit)] == ["instance_refused_other_pixels"] * 2
    with record.database.read() as tx:
        assert audit.verify(tx) is None


def test_only_what_is_not_recorded_is_recorded_again(record):
    assert record.arrivals.last_received_at() is None
    record.open("a1")
    known = record.add(1, seconds=7)
    assert record.arrivals.last_received_at() == record.at(7)
    lost = [record.arrival(n, association_id="lost-1", seconds=99) for n in (1, 2)]
    assert record.arrivals.unrecorded([a.digest for a in lost]) == {lost[1].digest}
    assert record.arrivals.add_lost(*lost) == 1
    assert record.arrivals.unrecorded([a.digest for a in lost]) == frozenset()
    assert stored(record) == {known.sop_instance_uid: known.digest, "1.2.3.2": lost[1].digest}
    assert waiting(record).series[0].interrupted
    assert record.arrivals.add_lost(replace(lost[1], digest="ab" * 32)) == 0, (
        "another version: never answered"
    )


def run_at_once(record, *shares):
    """Each share by a receiver with connections of its own."""
    start = threading.Barrier(len(shares))

    def add(share):
        database = Database(record.url)
        arrivals = Arrivals(database)
        start.wait()
        answers = [arrivals.add(arrival) for arrival in share]
        database.close()
        return answers

    with ThreadPoolExecutor(len(shares)) as pool:
        assert all(answer == {} for answers in pool.map(add, shares) for answer in answers)


def test_receivers_add_the_same_study_at_once(record):
    shared = [record.arrival(number) for number in range(20)]
    extra = [[record.arrival(first + number) for number in range(20)] for first in (100, 200, 300)]
    run_at_once(record, *(shared + each for each in extra))
    assert len(rows(record, schema.instance)) == 80
    assert len(record.jobs()) == len(rows(record, schema.patient)) == 1


def test_receivers_add_studies_of_the_same_patients_at_once(record):
    def share(receiver):
        return [
            record.arrival(
                100 * receiver + n, study_instance_uid=f"1.{receiver}.{n}", patient_key=("", f"{n % 5}")
            )
            for n in range(30)
        ]

    run_at_once(record, share(1), share(2), share(3))
    assert len(rows(record, schema.study)) == len(rows(record, schema.job)) == 90
    assert len(rows(record, schema.patient)) == 5


def test_one_instance_under_two_studies_at_once_is_recorded_once(record):
    """No lock keeps the two apart: the database does, and the one that came second looks again."""
    both = threading.Barrier(2)
    known = {"1.1": record.add(2, study_instance_uid="2.2"), "1.9": record.add(3, study_instance_uid="2.3")}

    def add(study):
        first_time = [True]

        def meet(_):
            if first_time and first_time.pop():
                with suppress(threading.BrokenBarrierError):
                    both.wait(0.5)  # on SQLite the other is not let in before this one is done

        one = record.arrival(1, content=study, study_instance_uid=study)
        return record.arrivals.add(one, known[study], keep_bytes=meet)

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(add, known))
    (row,) = (r for r in rows(record, schema.instance) if r.sop_instance_uid == "1.2.3.1")
    assert sorted(map(len, answers)) == [0, 1]
    assert {"1.2.3.1": row.digest} in answers


def test_text_that_no_database_takes_is_recorded_as_it_can_be(record):
    """Both databases refuse lone surrogates, and PostgreSQL a NUL."""
    record.open()
    record.add(patient_key=("HOSP\0ITAL", "47\ud80011"), modality="M\0R")
    with record.database.read() as tx:
        assert tx.execute(sa.select(schema.patient.c.issuer, schema.patient.c.patient_id)).all() == [
            ("HOSPITAL", "47?11")
        ]
    with record.database.write() as tx:
        audit.append(tx, "test", at=record.at(), facts={"what": "A\ud800"})
    with record.database.read() as tx:
        assert audit.verify(tx) is None


def test_bytes_are_dropped_only_where_no_version_has_them(record):
    record.open()
    arrival, dropped = record.add(), []
    record.arrivals.drop_unrecorded(arrival, drop_bytes=lambda: dropped.append("known"))
    record.arrivals.drop_unrecorded(
        replace(arrival, digest="cd" * 32), drop_bytes=lambda: dropped.append("new")
    )
    assert dropped == ["new"]


def test_what_is_set_aside_is_audited_and_moved_in_one_transaction(record):
    moved = []
    record.arrivals.set_aside("cd" * 32, move=lambda: moved.append(1))
    with record.database.read() as tx:
        (line,) = tx.execute(sa.select(schema.audit)).all()
    assert (moved, line.event, "cd" * 32 in line.facts) == ([1], "stored_instance_set_aside", True)

    def full():
        raise OutOfResources("full")

    with pytest.raises(OutOfResources):
        record.arrivals.set_aside("ef" * 32, move=full)
    with record.database.read() as tx:
        assert len(tx.execute(sa.select(schema.audit)).all()) == 1
