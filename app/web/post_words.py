"""What can be told, and why a message did not go, in words."""

from __future__ import annotations

from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.models import Channel, Event, Notice
from app.services.outbox import EXPIRED

EVENTS = {
    Event.ENDS_SOON: (_l("A booking ends soon"), _l("an hour and 15 minutes before, with a link to extend it")),
    Event.IDLE: (
        _l("GPUs of a booking do nothing"),
        _l("before they are given back, with a link to keep them"),
    ),
    Event.MOVED: (_l("A booking was changed"), _l("by somebody else: moved, shortened, cancelled, given another GPU")),
    Event.OFFERED: (_l("The waiting list has something"), _l("a booking or an offer for you, or it could not be had")),
    Event.QUOTA_LOW: (_l("Few hours are left"), _l("less than a tenth of the month's, or of what was granted last")),
    Event.DISK_FULL: (_l("A machine's disk is nearly full"), _l("once each time it fills, with what helps")),
    Event.SUMMARY: (
        _l("A summary of each month"),
        _l("what you booked and used; for owners of their teams and for admins of everybody too"),
    ),
    Event.MADE: (_l("A booking was made"), _l("by you or for you")),
    Event.STARTS: (_l("A booking starts"), ""),
    Event.ENDED: (_l("A booking has ended"), ""),
    Event.WAITING: (_l("Somebody waits for approval"), ""),
    Event.QUARANTINE: (_l("A GPU is in quarantine"), ""),
    Event.ALARM: (
        _l("Something is wrong on a host"),
        _l("GPUs used without a booking, machines stopped by force, …"),
    ),
    Event.APPROVED: (_l("A decision about an account"), ""),
    Event.TEST: (_l("A test"), ""),
}
TROUBLES = {
    EXPIRED: _l("it was too late to be of use"),
    "died": _l("the sender failed"),
    "too_slow": _l("no answer in time"),
    "not_taken": _l("the service was not reached or did not take it"),
    "sealed": _l("Berth's key has changed; add the service anew"),
    "mail_server": _l("the mail server does not answer"),
    "mail_unencrypted": _l("the mail server offers no encryption"),
    "not_printable": _l("the address is not valid"),
}


def trouble(code: str) -> str:
    """Why it did not go; "" for no reason."""
    kind, _sign, number = code.partition("_")
    if kind == "http" and number.isdigit():
        return _("the service answered %(code)s", code=number)
    if kind == "smtp" and number.isdigit():
        return _("the mail server answered %(code)s", code=number)
    return str(TROUBLES.get(code, code))


def state(notice: Notice) -> str:
    """What became of a message."""
    if notice.sent_at is not None:
        return _("Sent")
    if notice.given_up_at is not None:
        return _("Not sent: %(why)s", why=trouble(notice.trouble))
    return _("Is tried again: %(why)s", why=trouble(notice.trouble)) if notice.trouble else _("Waits")


def way(channel: Channel | None) -> str:
    """Which way it goes."""
    return _("E-mail") if channel is None else channel.name
