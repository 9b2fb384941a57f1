"""Bookings in people's own calendar programs: the secret addresses under Settings, and what they answer."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, flash, request, url_for
from wtforms import SelectField, StringField
from wtforms.validators import Optional

from app.errors import DomainError
from app.extensions import limiter, settings, transaction
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.services import feeds, ical, inventory
from app.web import locale
from app.web.forms import PageForm, at_most
from app.web.render import go, render
from app.web.security import public
from app.web.sessions import me

bp = Blueprint("feeds", __name__)


class FeedForm(PageForm):
    """Which bookings, and what to call the address."""

    of = SelectField(_l("Which bookings"))
    name = StringField(_l("Name"), [Optional(), at_most(feeds.NAME_LENGTH)])

    def offer_choices(self) -> None:
        """One's own, or everybody's on one host, as the calendar shows them."""
        hosts = [(host.name, _("All of %(host)s", host=host.name)) for host in inventory.hosts()]
        self.of.choices = [("", _("My own")), *hosts]


def _by_address() -> str:
    """The limit is the address's own; its secret is not kept in Valkey either."""
    return feeds.digest((request.view_args or {}).get("secret", ""))


@bp.get("/ics/<string(length=43):secret>.ics")
@public
@limiter.limit("60 per hour", key_func=_by_address)
@limiter.limit("600 per hour")
def calendar(secret: str) -> Response:
    """The calendar for a program that cannot sign in."""
    with transaction():
        feed = feeds.find(secret)
        feeds.touch(feed)
    answer = Response(ical.of(feed, settings().url, settings().zone), mimetype="text/calendar")
    answer.headers["Content-Disposition"] = "attachment; filename=berth.ics"
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


@bp.get("/settings/calendars")
def index() -> Response:
    """The addresses, and a form for one more."""
    return _page(_form(formdata=None))


@bp.post("/settings/calendars")
@limiter.limit("20 per hour")
def create() -> Response:
    """Make an address and show it, this once."""
    form = _form()
    if form.validate():
        try:
            with transaction():
                host = inventory.host(form.of.data) if form.of.data else None
                feed, secret = feeds.create(me(), form.name.data or "", host, locale.choose())
        except DomainError as error:
            form.form_errors.append(str(error))
        else:
            address = settings().url + url_for("feeds.calendar", secret=secret)
            return render("settings/feed.html", feed=feed, address=address)
    return _page(form, 422)


@bp.get("/settings/calendars/<int(max=9223372036854775807):feed_id>/withdraw")
def withdraw_form(feed_id: int) -> Response:
    """Ask whether it is meant."""
    feed = feeds.get(me(), feed_id)
    return render(
        "confirm.html",
        title=_("Withdraw the address %(name)s?", name=feed.name),
        lead=_("Programs that read it get nothing any more. This cannot be undone."),
        action=url_for("feeds.withdraw", feed_id=feed.id),
        button=_("Withdraw address"),
        back_url=url_for("feeds.index"),
        danger=True,
    )


@bp.post("/settings/calendars/<int(max=9223372036854775807):feed_id>/withdraw")
def withdraw(feed_id: int) -> Response:
    """Make an address worthless."""
    with transaction():
        feed = feeds.withdraw(me(), feed_id)
    flash(_("The address %(name)s is withdrawn.", name=feed.name))
    return go(url_for("feeds.index"))


def _form(**values: Any) -> FeedForm:
    form = FeedForm(**values)
    form.offer_choices()
    return form


def _page(form: FeedForm, status: int = 200) -> Response:
    hosts = {host.id: host.name for host in inventory.hosts()}
    return render(
        "settings/feeds.html",
        status=status,
        form=form,
        errors_found=status != 200,
        feeds=feeds.list_of(me()),
        hosts=hosts,
    )
