from msnode.domain.arrivals import AssociationFacts
from msnode.record import deliveries
from msnode.record.studies import calling_aes, destinations_of, one_digest_a_series


def test_who_sent_a_study_and_one_instance_of_each_series(record):
    record.open("a1")
    record.arrivals.association_opened(AssociationFacts("a2", "ER-MR", "MSNODE", "10.0.0.8", record.at(5)))
    first = record.add(1)
    record.add(2)
    other = record.add(3, series_instance_uid="1.2.9", association_id="a2", seconds=6)
    record.add(4, own=True, series_instance_uid="1.2.10")
    record.add(5, study_instance_uid="1.9", series_instance_uid="1.9.1", association_id="a3")
    with record.database.read() as tx:
        assert calling_aes(tx, "1.1") == {"MODALITY", "ER-MR"}
        assert calling_aes(tx, "1.7") == frozenset()
        assert one_digest_a_series(tx, "1.1") == (first.digest, other.digest)


def test_destinations_that_have_or_get_something_of_a_study(record):
    record.delivering(recipients={"pacs": ["seg", "sr"], "archive": ["sr"], "web": ["seg"]})
    with record.database.write() as tx:
        owed = {(d.destination, d.result.kind): d for d in deliveries.of_job(tx, 1)}
        deliveries.delivered(tx, owed["pacs", "seg"], at=record.at(230))
        deliveries.refused(tx, owed["pacs", "sr"], at=record.at(230), note="no")
        deliveries.refused(tx, owed["archive", "sr"], at=record.at(230), note="no")
        assert destinations_of(tx, "1.1") == {"pacs", "web"}
        assert destinations_of(tx, "1.7") == frozenset()
