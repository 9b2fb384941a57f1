"""What a booking would be and cost, in one sentence, while it is still being chosen in the calendar."""

from __future__ import annotations

from flask import Response, request, url_for

from app.errors import DomainError, InvalidInput
from app.services import bookings
from app.web.bookings import budget, words
from app.web.bookings import form as forms
from app.web.bookings.blueprint import bp, slot
from app.web.render import go, is_fragment, render
from app.web.sessions import me


@bp.get("/sentence")
def sentence() -> Response:
    """`2 GPUs on lab03, … Costs 24 GPU-hours; 76 of 100 left after.`, or why not; changes nothing. The fields are the
    form's. It is an answer whichever it is: what refuses is "Book"."""
    if not is_fragment():
        return go(url_for("bookings.new", **request.args.to_dict(flat=False), check=1))  # type: ignore[arg-type]
    form = forms.typed(request.args)
    form.offer([], [], budget.team_accounts())
    text, refused = "", True
    try:
        ask = forms.read(form)
        if ask is None:
            text = " ".join(str(error) for errors in form.errors.values() for error in errors)
        else:
            proposal = bookings.propose(me(), ask, slot())
            text, refused = f"{words.proposed(proposal)} {words.price(proposal)}", False
    except InvalidInput as error:
        text = str(error)
    except DomainError as error:
        text = f"{error.brief} {error.hint}"
    return render("bookings/_sentence.html", fragment="bookings/_sentence.html", text=text, refused=refused)
