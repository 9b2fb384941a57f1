"""The services through which a person is told: added after a look at the address, tested, removed.

An address is a secret: whoever has it can write there. It is kept encrypted and shown to nobody again.
"""

from __future__ import annotations

from sqlalchemy import select

from app import clock
from app.drivers import messengers
from app.drivers.base import DriverError
from app.errors import InvalidInput, NotFound, RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import Channel, Event, Notice, User
from app.services import audit, notices, sealing
from app.services.accounts import one_line
from app.services.notices import MAIL, Telling

MOST = 10
NAME_LENGTH = 64
ADDRESS_LENGTH = messengers.LONGEST


def add(user: User, name: str, address: str, *, allowed: tuple[str, ...], secret_key: str) -> Channel:
    """Let the person be told through one more service. Raises InvalidInput, RuleRefused."""
    name, address = one_line(name, "name", NAME_LENGTH), address.strip()
    scheme = _checked(address, allowed)
    if len(notices.channels_of(user)) >= MOST:
        raise RuleRefused(_("You have %(max)s services already.", max=MOST), _("Remove one first."), rule="channels")
    channel = Channel(user_id=user.id, name=name or scheme, scheme=scheme, sealed=sealing.seal(secret_key, address))
    db.session.add(channel)
    db.session.flush()
    notices.add_way(user, channel)
    audit.record(user.username, "channel.added", f"channel:{channel.id}", scheme=scheme, name=channel.name)
    return channel


def get(user: User, channel_id: int) -> Channel:
    """One of the person's services. Raises NotFound."""
    channel = db.session.scalar(select(Channel).where(Channel.id == channel_id, Channel.user_id == user.id))
    if channel is None:
        raise NotFound(_("There is no service %(id)s of yours.", id=channel_id))
    return channel


def remove(user: User, channel_id: int) -> Channel:
    """Forget a service, and what still waits to go there."""
    channel = get(user, channel_id)
    db.session.delete(channel)
    db.session.flush()
    audit.record(user.username, "channel.removed", f"channel:{channel.id}", scheme=channel.scheme, name=channel.name)
    return channel


def test(user: User, way: str, *, mail: bool) -> Notice | None:
    """Send a test by e-mail (`mail`) or through a service (its id). Raises InvalidInput where there is no such way."""
    channel = None
    if way != MAIL:
        channel = get(user, int(way) if way.isascii() and way.isdigit() and len(way) < 19 else 0)
    elif not mail:
        raise InvalidInput(_("This lab has set up no mail server."), _("Ask an admin."))
    elif not user.email:
        raise InvalidInput(_("Your profile has no e-mail address."), _("Write it there first."))
    telling = Telling(Event.TEST, f"test:{clock.now():%Y%m%dT%H%M%S}", {})
    notices.post(user, telling, channel.id if channel else None)
    return next(iter(notices.latest(user, 1)), None)


def _checked(address: str, allowed: tuple[str, ...]) -> str:
    try:
        return messengers.scheme_of(address, allowed)
    except DriverError as error:
        if str(error) == "scheme":
            raise InvalidInput(
                _("This lab does not send through that kind of address."),
                _("Allowed are: %(schemes)s.", schemes=", ".join(sorted(allowed))),
                field="address",
            ) from error
        if str(error) == "option":
            raise InvalidInput(
                _("The address has an option that is not allowed."),
                _("Leave out what it does not need."),
                field="address",
            ) from error
        raise InvalidInput(
            _("This is no address of a service."),
            _("Use one such as ntfys://ntfy.sh/my-topic, or the webhook address that the service shows."),
            field="address",
        ) from error
