"""Queries about one study, for routing, and the name of its lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from msnode.record import schema
from msnode.record.delivery import DeliveryState

if TYPE_CHECKING:
    from msnode.record.database import Transaction


def study_lock(study_instance_uid: str) -> str:
    """Name of the lock (`database.lock`) that guards the received instances of a study."""
    return f"study {study_instance_uid}"


def calling_aes(tx: Transaction, study_instance_uid: str) -> frozenset[str]:
    """Calling AE titles of the associations that sent the study."""
    a, link = schema.association, schema.association_series
    query = (
        sa.select(a.c.calling_ae)
        .distinct()
        .join_from(a, link, link.c.association_id == a.c.association_id)
        .join(schema.series, schema.series.c.id == link.c.series_key)
        .join(schema.study, schema.study.c.id == schema.series.c.study_key)
        .where(schema.study.c.study_instance_uid == study_instance_uid)
    )
    return frozenset(tx.execute(query).scalars())


def one_digest_a_series(tx: Transaction, study_instance_uid: str) -> tuple[str, ...]:
    """Digests of the first instance of each series, without instances that a node made."""
    i, s = schema.instance, schema.series
    first = (
        sa.select(sa.func.min(i.c.id))
        .join_from(i, s)
        .join(schema.study, schema.study.c.id == s.c.study_key)
        .where(schema.study.c.study_instance_uid == study_instance_uid)
        .where(i.c.superseded.is_(False), i.c.own.is_(False))
        .group_by(s.c.id)
    )
    return tuple(tx.execute(sa.select(i.c.digest).where(i.c.id.in_(first)).order_by(i.c.id)).scalars())


def destinations_of(tx: Transaction, study_instance_uid: str) -> frozenset[str]:
    """Destinations that have an object of any revision of the study, or have still to get one."""
    d, j = schema.delivery, schema.job
    has = d.c.state.in_([DeliveryState.PENDING, DeliveryState.DELIVERED, DeliveryState.COMMITTED])
    query = (
        sa.select(d.c.destination)
        .distinct()
        .join_from(d, j, j.c.id == d.c.job_id)
        .join(schema.study, schema.study.c.id == j.c.study_key)
        .where(schema.study.c.study_instance_uid == study_instance_uid, has)
    )
    return frozenset(tx.execute(query).scalars())
