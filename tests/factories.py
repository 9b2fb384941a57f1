"""Plain functions that make rows with sensible values; they flush, the client commits."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from itertools import count
from typing import Any

from app.extensions import db
from app.models import (
    Account,
    Allocation,
    Booking,
    EntryKind,
    Gpu,
    Host,
    Instance,
    InstanceStatus,
    Role,
    Template,
    TemplateKind,
    TemplateState,
    User,
    UserState,
)
from app.services import quota
from tests.page import PASSWORD

_numbers = count(1)


@cache
def _password_hash() -> str:
    from app.services import passwords

    return passwords.hashed(PASSWORD, "nobody")


def make_user(username: str = "", *, hours: float = 100, **values: Any) -> User:
    """An active person (password: tests.page.PASSWORD) with an account and so many GPU-hours."""
    number = next(_numbers)
    username = username or f"person{number}"
    values.setdefault("full_name", username.replace("-", " ").title())
    values.setdefault("email", f"{username}@example.org")
    values.setdefault("state", UserState.ACTIVE)
    values.setdefault("role", Role.USER)
    user = User(username=username, password_hash=_password_hash(), **values)
    user.account = Account(name=username) if user.state == UserState.ACTIVE else None
    db.session.add(user)
    db.session.flush()
    if user.account is not None and hours:
        key = f"test:{username}:{number}"
        quota.post(user.account.id, EntryKind.GRANT, round(hours * 3600), key=key, actor="test")
    return user


def make_admin(username: str = "", **values: Any) -> User:
    """As `make_user`, but an admin."""
    return make_user(username or f"admin{next(_numbers)}", role=Role.ADMIN, **values)


def make_pending(username: str = "", **values: Any) -> User:
    """Somebody who waits for approval."""
    return make_user(username or f"waiting{next(_numbers)}", state=UserState.PENDING, **values)


def make_host(name: str = "", *, gpus: int = 4, model: str = "NVIDIA RTX A6000", **values: Any) -> Host:
    """A host with so many GPUs; its address leads nowhere unless `endpoint` is given."""
    name = name or f"lab{next(_numbers):02}"
    values.setdefault("endpoint", f"/nowhere/{name}.socket")
    host = Host(name=name, **values)
    db.session.add(host)
    db.session.flush()
    for minor in range(gpus):
        make_gpu(host, minor=minor, model=model)
    return host


def make_gpu(host: Host, *, minor: int = 0, model: str = "NVIDIA RTX A6000", **values: Any) -> Gpu:
    """One more GPU of a host."""
    values.setdefault("pci_address", f"0000:{minor + 1:02x}:00.0")
    gpu = Gpu(host_id=host.id, model=model, minor=minor, uuid=f"GPU-{host.name}-{minor}"[-64:], **values)
    db.session.add(gpu)
    db.session.flush()
    return gpu


def gpus_of(host: Host) -> list[Gpu]:
    """A host's GPUs in order."""
    return list(db.session.scalars(db.select(Gpu).where(Gpu.host_id == host.id).order_by(Gpu.minor)))


def make_instance(owner: User, host: Host, name: str = "", **values: Any) -> Instance:
    """A machine that runs."""
    defaults = {"image": "ubuntu/24.04", "cpus": 4, "memory_mib": 8192, "disk_gib": 50}
    values.setdefault("status", InstanceStatus.RUNNING)
    instance = Instance(
        name=name or f"{owner.username}-{host.name}", host_id=host.id, owner_id=owner.id, **(defaults | values)
    )
    db.session.add(instance)
    db.session.flush()
    return instance


def make_template(host: Host, name: str = "base", **values: Any) -> Template:
    """A template that machines can be made from."""
    values = {"kind": TemplateKind.RECIPE, "source": "base", "state": TemplateState.READY} | values
    template = Template(host_id=host.id, name=name, **values)
    db.session.add(template)
    db.session.flush()
    template.image = f"berth-template-{template.id}"
    db.session.flush()
    return template


def make_booking(user: User, gpus: list[Gpu], starts_at: datetime, ends_at: datetime, **values: Any) -> Booking:
    """A booking as it lies in the database, held in the ledger; no rule is asked, so it may lie in the past."""
    assert user.account_id is not None
    booking = Booking(
        user_id=user.id,
        account_id=user.account_id,
        host_id=gpus[0].host_id,
        starts_at=starts_at,
        ends_at=ends_at,
        booked_until=values.pop("booked_until", ends_at),
        **values,
    )
    db.session.add(booking)
    db.session.flush()
    for gpu in gpus:
        db.session.add(Allocation(booking_id=booking.id, gpu_id=gpu.id, starts_at=starts_at, ends_at=ends_at))
    db.session.flush()
    seconds = len(gpus) * round((ends_at - starts_at).total_seconds())
    quota.hold(booking, seconds, key=f"hold:{booking.id}", actor=user.username)
    return booking


def attach(booking: Booking) -> None:
    """As if a pass had seen its GPUs in the machine from its start on."""
    query = db.update(Allocation).where(Allocation.booking_id == booking.id)
    db.session.execute(query.values(attached_at=Allocation.starts_at))
