"""A person's quota: one sentence, one bar, and each line of the ledger."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, request
from flask_babel import format_datetime

from app import clock
from app.extensions import lab_zone, settings
from app.language import gettext as _
from app.language import ngettext
from app.models import Account
from app.services import accounts, charges, people, quota, statement, teams, words
from app.services.rules import amounts, classes, gate
from app.services.rules.amounts import Use
from app.services.rules.terms import Rules
from app.services.statement import Line, Standing
from app.services.windows import hours_text
from app.web import csv_files, idle_words, rule_words, times
from app.web.render import render
from app.web.sessions import me

bp = Blueprint("quota", __name__)

PAGE = 50
MOST_CSV_LINES = 20_000
WIDTH = 720  # of the bar's drawing


@bp.get("/quota")
def index() -> Response:
    """One's own quota."""
    account = accounts.get(me().username).account
    assert account is not None, "whoever is active has an account"
    return render("quota/index.html", admins=people.admins(), teams=teams.of(me()), **context_of(account))


@bp.get("/quota.csv")
def csv_file() -> Response:
    """The ledger as a file: one line for each row of the page's table, all of them."""
    account_id = me().account_id
    assert account_id is not None, "whoever is active has an account"
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["time", "what", "note", "booking", "change_hours", "balance_hours"])
    for line in statement.lines(account_id, MOST_CSV_LINES):
        entry = line.entry
        cells = [entry.created_at.isoformat(timespec="seconds"), line.word, csv_files.harmless(entry.note)]
        writer.writerow([*cells, entry.booking_id or "", hours_text(entry.amount), hours_text(entry.balance_after)])
    return csv_files.download("ledger.csv", file.getvalue())


def context_of(account: Account) -> dict[str, Any]:
    """What the templates need to show an account: its standing and a page of its ledger."""
    standing = statement.standing(account, settings().zone)
    before = request.args.get("before", type=int)
    lines = statement.lines(account.id, PAGE + 1, before)
    rules = classes.of_account(account.id)
    return {
        "account": account,
        "own_class": rules,
        "limits": limits_of(account.id, classes.rules_of(rules)),
        "rule_lines": [
            *rule_words.sentences(classes.rules_of(rules), str(settings().zone)),
            *idle_words.rule(classes.rules_of(rules)),
        ],
        "standing": standing,
        "sentence": sentence(standing),
        "bar": _bar(standing),
        "lines": lines[:PAGE],
        "earlier_id": lines[PAGE - 1].entry.id if len(lines) > PAGE else None,
        "later": before is not None,
        "describe": describe,
    }


def limits_of(account_id: int, rules: Rules) -> list[tuple[str, Use]]:
    """What is booked of each limit of hours in the day, the week and the month that it is now; with its name."""
    now = clock.now()
    claims = gate.claims_of(account_id, now - gate.LONGEST_PERIOD) if rules.looks_at_others else []
    names = {"hours_day": _("Today"), "hours_week": _("This week"), "hours_month": _("This month")}
    return [(names[use.rule], use) for use in amounts.uses(now, claims, rules, lab_zone())]


def sentence(standing: Standing) -> str:
    """The headline, from which the rest of the page follows."""
    used, total = hours_text(standing.used), hours_text(standing.total)
    numbers = {"used": used, "total": total, "left": hours_text(standing.left)}
    numbers["reserved"] = hours_text(standing.reserved)
    if standing.since is None or standing.resets_at is None:
        return _(
            "%(used)s of %(total)s GPU-hours used (%(left)s left, of which %(reserved)s reserved). Resets: never.",
            **numbers,
        )
    return _(
        "%(used)s of %(total)s GPU-hours used in %(month)s (%(left)s left, of which %(reserved)s reserved). "
        "Resets %(reset)s.",
        month=_month_name(standing.since),
        reset=times.moment_text(standing.resets_at, "d MMM HH:mm"),
        **numbers,
    )


def describe(line: Line) -> str:
    """A ledger line in words."""
    plain = {
        "granted": _("Granted"),
        "reserved": _("Reserved"),
        "given_back": _("Given back"),
        "lifted": _("Reservation ended"),
        "used": _("Used"),
        "taken_back": _("Taken back"),
        "fee": _("Charged for giving back late"),
        "unused": _("Charged for what was taken back unused"),
        "expired": _("Expired at the end of the month"),
    }
    if line.booking is None:
        by_hand = line.entry.note and not line.entry.key.startswith(("month:", "lapse:", "settle:"))
        text = _("%(what)s: %(note)s", what=plain[line.word], note=line.entry.note) if by_hand else plain[line.word]
        return text + _charged(line.entry.note)
    count = len(line.booking.allocations)
    text = ngettext(
        "%(what)s: %(num)s GPU on %(host)s, %(start)s",
        "%(what)s: %(num)s GPUs on %(host)s, %(start)s",
        count,
        what=plain[line.word],
        host=line.booking.host.name,
        start=words.when(line.booking.starts_at),
    )
    return text + _charged(line.entry.note)


def _charged(note: str) -> str:
    """Why less was charged than was reserved."""
    if (found := charges.explained(note)) is None:
        return ""
    kind, used, whole = found[0], *map(hours_text, found[1:])
    if kind == charges.GIVEN:
        return _(" (%(used)s of %(whole)s GPU-hours: what Berth could not give costs nothing)", used=used, whole=whole)
    return _(" (%(used)s GPU-hours attached of %(whole)s reserved)", used=used, whole=whole)


def _month_name(since: datetime) -> str:
    """The month in the lab's calendar, whatever the viewer's zone makes of its first moment."""
    return format_datetime(since.astimezone(lab_zone()).replace(tzinfo=None), _("LLLL"), rebase=False)


def _bar(standing: Standing) -> dict[str, float]:
    """Where the parts of the bar begin and end, and where today is in the month."""
    total = max(standing.total, 1)
    used = min(max(standing.used / total, 0), 1) * WIDTH
    reserved = min(max(standing.reserved / total * WIDTH, 0), WIDTH - used)
    bar = {"used": round(used, 1), "reserved": round(reserved, 1), "left": round(WIDTH - used - reserved, 1)}
    if standing.since is not None:
        now = clock.now()
        span = quota.next_month(now, lab_zone()) - standing.since
        bar["today"] = round((now - standing.since) / span * WIDTH, 1)
    return bar
