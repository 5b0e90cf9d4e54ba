"""What peers ask the node to keep, noted in a record and decided there."""

import json

import sqlalchemy as sa

from msnode.deliver.retry import RetryPolicy
from msnode.record import promises, schema

MR = "1.2.840.10008.5.1.4.1.1.4"
RETRY = RetryPolicy(first_s=10, factor=2, max_s=100, limit=3)


def note(record, request, calling_ae="ROUTER", seconds=0):
    with record.database.write() as tx:
        return promises.note_request(tx, request, calling_ae=calling_ae, at=record.at(seconds))


def open_ids(record):
    with record.database.read() as tx:
        return [each.id for each in promises.open_reports(tx)]


def promised(record):
    i = schema.instance
    with record.database.read() as tx:
        return set(tx.execute(sa.select(i.c.sop_instance_uid).where(i.c.promised)).scalars())


def row(record, request_id=1):
    with record.database.read() as tx:
        return tx.execute(
            sa.select(schema.commitment_request).where(schema.commitment_request.c.id == request_id)
        ).one()


def audited(record):
    with record.database.read() as tx:
        return [(line.event, json.loads(line.facts)) for line in tx.execute(sa.select(schema.audit)).all()]


def decide(record, request, has_bytes=lambda _digest: True):
    with record.database.write() as tx:
        report = promises.promise(tx, request, has_bytes=has_bytes)
    failed = {each.sop_instance_uid: reason for each, reason in report.failed.items()}
    return [each.sop_instance_uid for each in report.kept], failed
