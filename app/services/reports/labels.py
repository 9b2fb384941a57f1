"""What people call that of which a report has a row; no two rows of a report are called the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import joinedload

from app.extensions import db
from app.language import gettext as _
from app.models import Account, Booking, Gpu, Host
from app.services.reports.pieces import Key
from app.services.words import apart, gpu_label, when


def of(key: Key, ids: Collection[Any]) -> dict[Any, str]:
    """By what rows are grouped by: ids, or models."""
    if key == Key.MODEL:
        return {model: model for model in ids}
    if key == Key.PERSON:
        return people(ids)
    if key == Key.TEAM:
        query = select(Account).where(Account.id.in_(ids))
        return {0: ""} | {account.id: account.title for account in db.session.scalars(query)}
    if key == Key.HOST:
        return {host.id: host.name for host in db.session.scalars(select(Host).where(Host.id.in_(ids)))}
    return _bookings(ids) if key == Key.BOOKING else _gpus(ids)


def people(ids: Collection[int]) -> dict[int, str]:
    """Told apart from everybody in the lab who has the same name, not only from those who are named beside them."""
    query = text("""
        WITH named AS (SELECT id, username, coalesce(nullif(full_name, ''), username) AS name FROM users)
        SELECT id, name, username, name IN (SELECT name FROM named GROUP BY name HAVING count(*) > 1)
        FROM named WHERE id = ANY (:ids)""")
    found = db.session.execute(query, {"ids": list(ids)})
    return {one: apart(name, username) if shared else name for one, name, username, shared in found}


def _bookings(ids: Collection[int]) -> dict[int, str]:
    query = select(Booking).where(Booking.id.in_(ids)).options(joinedload(Booking.host))
    names = {
        one.id: _("%(host)s, %(start)s", host=one.host.name, start=when(one.starts_at))
        for one in db.session.scalars(query)
    }
    return _apart(names, {one: _("booking %(id)s", id=one) for one in names})


def _gpus(ids: Collection[int]) -> dict[int, str]:
    """A card that was put into another slot is another GPU, and one that is gone keeps its number."""
    query = select(Gpu, Host.name).join(Host, Host.id == Gpu.host_id).where(Gpu.id.in_(ids))
    found = db.session.execute(query).all()
    names = {gpu.id: f"{host} {gpu_label(gpu)}" for gpu, host in found}
    return _apart(names, {gpu.id: gpu.pci_address for gpu, _host in found})


def _apart(names: Mapping[int, str], which: Mapping[int, str]) -> dict[int, str]:
    """With what tells them apart behind each that there is more than once."""
    times = Counter(names.values())
    return {one: apart(name, which[one]) if times[name] > 1 else name for one, name in names.items()}
