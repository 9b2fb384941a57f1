"""A booking's time, number of GPUs and purpose, changed on one page. What costs other hours by more than its time, or
a fee, says so first and asks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from flask import Response, flash, request, url_for

from app import clock
from app.errors import DomainError, InvalidInput, NotFound
from app.extensions import transaction
from app.language import gettext as _
from app.language import ngettext
from app.models import Booking, Phase
from app.services import bookings, choices, edits, priced, quota, resizing
from app.services.edits import Edit
from app.services.priced import Price
from app.services.windows import Window, hours_text
from app.services.words import gpu_list
from app.web.bookings import costs, edit_form, words
from app.web.bookings.blueprint import ID, bp, slot
from app.web.bookings.edit_form import EditForm
from app.web.bookings.shown import as_text
from app.web.bookings.times_form import fee_named
from app.web.errors import status_of
from app.web.forms import filled_in
from app.web.render import go, render
from app.web.security import comes_back
from app.web.sessions import me
from app.web.times import moment_text
from app.web.wakes import wake_if_due


@dataclass(frozen=True)
class State:
    """What a booking has."""

    window: Window
    gpu_ids: frozenset[int]
    gpus: str
    note: str
    cost: Price | None = None  # what it took to come there

    @classmethod
    def of(cls, booking: Booking, cost: Price | None = None) -> State:
        """As it is now."""
        gpus = gpu_list(allocation.gpu for allocation in booking.allocations)
        window = Window(booking.starts_at, booking.ends_at)
        return cls(window, resizing.gpu_ids(booking), gpus, booking.note, cost)


@bp.get(f"/{ID}/change")
def ask_change(booking_id: int) -> Response:
    """The form; where its address fills it in, with what that would do and cost, if it is to be asked for."""
    booking = bookings.get(me(), booking_id)
    if "end_time" not in request.args:
        return _page(booking, EditForm(formdata=None, **edit_form.filled(booking)))
    form, before = EditForm(formdata=request.args), State.of(booking)
    try:
        edit = form.edit(booking)
        after = _preview(booking_id, edit)
    except DomainError:  # why is said once it is sent
        return _page(bookings.get(me(), booking_id), form)
    booking, asked = bookings.get(me(), booking_id), None
    if _asks(before, after):  # with the time as it was typed, though it is put on the grid: that is sent again
        asked = replace(after, window=edit.window or after.window)
    return _page(booking, form, asked=asked)


@bp.post(f"/{ID}/change")
@comes_back(lambda: filled_in("bookings.ask_change"))
def change(booking_id: int) -> Response:
    """Change what was typed otherwise, all of it or nothing."""
    booking = bookings.get(me(), booking_id)
    form = EditForm(formdata=request.form)
    try:
        return made(booking, form.edit(booking))
    except InvalidInput as error:
        form.refuse(error)
        return _page(bookings.get(me(), booking_id), form, 422)
    except NotFound:
        raise
    except DomainError as error:
        return _page(bookings.get(me(), booking_id), form, status_of(error), refused=error)


def made(booking: Booking, edit: Edit) -> Response:
    """Change it; what is to be asked for first, only if the form named just this, and no less than it costs now."""
    before, seen = State.of(booking), edit_form.what_was_seen()
    with transaction() as session:
        booking, price = priced.made(booking.id, lambda: edits.change(me(), booking.id, edit, slot(), seen))
        after = State.of(booking, price)
        if _asks(before, after) and not _agreed(booking, edit, after):
            session.rollback()
            return go(edit_form.asking(bookings.get(me(), booking.id), edit))
    wake_if_due(booking)
    flash(_told(booking, before, after))
    return go(url_for("bookings.show", booking_id=booking.id))


def _preview(booking_id: int, edit: Edit) -> State:
    """What it would be; nothing stays of it."""
    found: list[State] = []
    price = priced.preview(booking_id, lambda: found.append(State.of(edits.change(me(), booking_id, edit, slot()))))
    after = found[0]
    return State(after.window, after.gpu_ids, after.gpus, after.note, price)


def _asks(before: State, after: State) -> bool:
    fee = after.cost.fee if after.cost else 0
    return fee > 0 or before.gpu_ids != after.gpu_ids


def _agreed(booking: Booking, edit: Edit, after: State) -> bool:
    agreed = edit_form.agreed()
    if agreed is None or after.cost is None or agreed.window != (edit.window or after.window):
        return False
    if edit.size is not None and (agreed.gpu_ids != after.gpu_ids or after.cost.more > agreed.more):
        return False
    return after.cost.fee <= fee_named(booking)


def _told(booking: Booking, before: State, after: State) -> str:
    """What it became, in sentences."""
    more, fee = (after.cost.more, after.cost.fee) if after.cost else (0, 0)
    told = list[str]()
    resized, noted = before.gpu_ids != after.gpu_ids, before.note != after.note
    if before.window != after.window or not (resized or noted):
        told.append(_became(before.window, after.window, hours_text(-more), plain=not resized))
    if resized:
        has = ngettext("It has %(num)s GPU now: %(gpus)s.", "It has %(num)s GPUs now: %(gpus)s.", len(after.gpu_ids),
                       gpus=after.gpus)  # fmt: skip
        told += [has, costs.more(more)]
    if noted:
        told.append(_("Its purpose was changed."))
    if fee > 0:
        told.append(costs.late(booking.account_id, fee))
    return " ".join(told)


def _became(before: Window, after: Window, hours: str, *, plain: bool) -> str:
    """`hours`: what was given back, where it became shorter and that is all (`plain`)."""
    seconds = int((after.ends_at - before.ends_at).total_seconds())
    end = moment_text(after.ends_at)
    if after.starts_at != before.starts_at or (seconds and not plain):
        return _("Moved: it starts %(start)s and ends %(end)s.", start=moment_text(after.starts_at), end=end)
    if seconds > 0:
        return _("Extended by %(length)s: it ends %(end)s.", length=words.length(seconds), end=end)
    if seconds < 0:
        return _("Shortened: it ends %(end)s, %(hours)s GPU-hours given back.", end=end, hours=hours)
    return _("Nothing changed: it ends %(end)s.", end=end)


def _page(
    booking: Booking,
    form: EditForm,
    status: int = 200,
    refused: DomainError | None = None,
    asked: State | None = None,
) -> Response:
    """`asked`: what it would become, where that is asked for first."""
    form.complete(booking)
    upcoming = booking.phase(clock.now()) == Phase.UPCOMING
    now, hidden = edit_form.as_seen(booking), dict[str, Any]()
    if not refused:  # after a refusal it is what they look at now that is changed
        now |= {name: request.values[name] for name in now if name in request.values}
    if asked and asked.cost:
        take = ",".join(map(str, sorted(asked.gpu_ids)))
        hidden = {"agreed": as_text(asked.window), "take": take, "more": asked.cost.more, "fee": asked.cost.fee}
        if form.gpu.data:  # they are those that were chosen: unticked, they are not meant any more
            hidden["ticked"] = "1"
    return render(
        "bookings/change.html",
        booking=booking,
        what=words.what_of(booking),
        span=words.span(booking.starts_at, booking.ends_at),
        gpus=gpu_list(allocation.gpu for allocation in booking.allocations),
        upcoming=upcoming,
        choices=choices.of(booking, asked.window if asked else form.meant(booking)) if upcoming else [],
        hidden=now | hidden,
        form=form,
        errors_found=bool(form.errors),
        refused=refused,
        facts=_facts(booking, asked) if asked else [],
        status=status,
    )


def _facts(booking: Booking, asked: State) -> list[str]:
    """What is asked for, and what it costs."""
    price, facts = asked.cost or Price(0, 0), list[str]()
    before = State.of(booking)
    if before.gpu_ids != asked.gpu_ids:
        facts.append(_("It will have: %(gpus)s. It has now: %(before)s.", gpus=asked.gpus, before=before.gpus))
    facts.append(costs.of_what_is_left(price.more, quota.free(booking.account_id), price.fee))
    if price.fee > 0:
        facts.append(costs.late(booking.account_id, price.fee))
    return facts
