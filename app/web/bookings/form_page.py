"""The booking form's page: empty, filled in, checked or refused."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.language import gettext as _
from app.models import Gpu
from app.services import openings
from app.services.bookings import Proposal
from app.services.refusals import Offer
from app.services.rules import classes
from app.services.series import patterns
from app.web.bookings import budget, repeat, words
from app.web.bookings import form as forms
from app.web.bookings.form import BookingForm
from app.web.render import render
from app.web.sessions import me


def page(form: BookingForm, *, status: int = 200, **context: Any) -> Response:
    """The form with what it is filled with, and what `context` says of it."""
    proposal: Proposal | None = context.get("proposal")
    offers: list[Offer] = context.pop("offers", [])
    gpus = openings.by_host(openings.usable_gpus())
    account_id = budget.payer(me(), form.account.data or "")
    return render(
        "bookings/new.html",
        form=form,
        groups=[(group[0].host.name, group) for group in gpus.values()],
        ticked=set(form.gpu.data or ()),
        chosen=bool(form.gpu.data or form.host.data or form.host.errors),
        errors_found=bool(form.errors),
        rules=classes.rules_for(account_id),
        left=budget.left(account_id),
        quick=forms.QUICK_HOURS,
        repeating=repeat.wanted(form),
        repeat_choices=repeat.choices(),
        most_of_a_series=patterns.MOST,
        sentence=f"{words.proposed(proposal)} {words.price(proposal)}" if proposal else "",
        offers=[shown_offer(offer) for offer in offers],
        status=status,
        **context,
    )


def shown_offer(offer: Offer) -> dict[str, Any]:
    """An offer with its button's words, and the fields that its form sends."""
    proposal = offer.proposal
    window = proposal.window
    whole = words.what(len(proposal.gpus), proposal.gpus[0].host.name)
    texts = {
        "same": _("Book %(what)s", what=whole),
        "elsewhere": _("Book %(what)s instead", what=whole),
        "shorter": _("Book %(length)s instead", length=words.length(window.seconds)),
        "fewer": _("Book %(what)s instead", what=whole),
        "later": _("Book the later time"),
        "sooner": _("Book the earlier time"),
        "longer": _("Book %(length)s instead", length=words.length(window.seconds)),
    }
    lead = {
        "same": _("Free now:"),
        "elsewhere": _("Other GPUs at the same time:"),
        "shorter": _("Shorter:"),
        "fewer": _("Fewer GPUs:"),
        "later": _("Later:"),
        "sooner": _("Sooner:"),
        "longer": _("Longer:"),
    }[offer.kind]
    return {
        "text": texts[offer.kind],
        "lead": lead,
        "sentence": f"{words.proposed(proposal)} {words.price(proposal)}",
        "ask": offer.ask,
        "proposal": proposal,
    }


def with_lists(form: BookingForm) -> BookingForm:
    """The form with what there is to choose from."""
    gpus: list[Gpu] = openings.usable_gpus()
    models, hosts = sorted({gpu.model for gpu in gpus}), sorted({gpu.host.name for gpu in gpus})
    return form.offer(models, hosts, budget.team_accounts())
