"""Which account pays for a booking: one's own, or a team's that one is in."""

from __future__ import annotations

from sqlalchemy import select

from app.errors import InvalidInput, NotAllowed
from app.extensions import db
from app.language import gettext as _
from app.models import Account, TeamMember, User


def account_id(user: User, name: str = "") -> int:
    """The account of that name, where this person may book on it; "" or one's own name: one's own.

    Raises NotAllowed for whoever has none yet, and InvalidInput for one that is not theirs."""
    if name and name != user.username:
        query = select(Account.id).join(TeamMember).where(Account.name == name, TeamMember.user_id == user.id)
        if (found := db.session.scalar(query)) is None:
            raise InvalidInput(_("You cannot book on this account."), _("Choose one from the list."), field="account")
        return found
    if user.account_id is None:
        raise NotAllowed(_("You have no account to book from yet."), _("An admin must approve you first."))
    return user.account_id


def member_id(user: User, account: int) -> int | None:
    """Whose cap in a team counts where that account pays; None for one's own account, which has no members."""
    return user.id if account != user.account_id else None
