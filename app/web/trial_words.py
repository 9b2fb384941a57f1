"""What rules would have meant for bookings after they were made, in sentences for those who try them."""

from __future__ import annotations

from collections.abc import Iterator

from app.extensions import lab_zone
from app.language import gettext as _
from app.language import ngettext
from app.services.idle import past
from app.services.rules import afterwards, trial
from app.services.rules.afterwards import Ended
from app.services.rules.terms import Rules
from app.services.windows import hours_text


def sentences(result: trial.Trial, rules: Rules) -> Iterator[str]:
    """Of those bookings that would not have been refused."""
    ids = [one.booking_id for one in result.kept]
    if result.longer:
        yield ngettext(
            "%(num)s booking would have been longer, to lie on the grid: %(hours)s GPU-hours more.",
            "%(num)s bookings would have been longer, to lie on the grid: %(hours)s GPU-hours more.",
            result.longer,
            hours=hours_text(result.added),
        )
    else:
        yield _("Every start and end lies on the grid.")
    yield from _late(afterwards.late(ids, rules, lab_zone()), rules)
    yield from _no_shows(afterwards.no_shows(ids, rules), rules)
    yield from _idle(past.look(ids, rules), rules)


def _late(found: afterwards.Late, rules: Rules) -> Iterator[str]:
    if rules.late_hours is None and not found.did:
        return
    yield _(
        "Charged for giving back late: %(hours)s GPU-hours (in fact %(did)s). Bookings: %(count)s.",
        hours=hours_text(found.seconds),
        count=found.bookings,
        did=hours_text(found.did),
    )


def _no_shows(found: Ended, rules: Rules) -> Iterator[str]:
    if rules.noshow_minutes is None and not found.did:
        return
    yield _(
        "Ended since nobody came: %(count)s (in fact %(did)s), %(hours)s GPU-hours before their time.",
        count=found.count,
        hours=hours_text(found.seconds),
        did=found.did,
    )
    yield from _unknown(found)


def _idle(found: past.Looked, rules: Rules) -> Iterator[str]:
    yield _(
        "Given back after %(minutes)s minutes of doing nothing, had nobody kept them: %(count)s (in fact %(did)s), "
        "%(hours)s GPU-hours before their time.",
        count=found.ended.count,
        minutes=rules.idle_minutes,
        hours=hours_text(found.ended.seconds),
        did=found.ended.did,
    )
    yield from _unknown(found.ended)
    if found.unmeasured:
        yield _("Bookings of which it is not known what their GPUs did: %(count)s.", count=found.unmeasured)


def _unknown(found: Ended) -> Iterator[str]:
    if found.unknown:
        yield _(
            "Ended sooner in fact than by these rules, so that nobody knows what would have come: %(count)s.",
            count=found.unknown,
        )
