"""Classes of accounts: which one holds for an account, and how admins change them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, func, or_, select

from app.errors import Conflict, InvalidInput, NotFound
from app.extensions import db
from app.language import gettext as _
from app.models import Account, AccountClass, Policy, User
from app.services import audit, policy
from app.services.rules import terms
from app.services.rules.terms import Rules

NAME_LENGTH = 64
IS_OF = or_(Account.class_id == AccountClass.id, Account.class_id.is_(None) & AccountClass.is_default)
# Built once: each booking asks. The lab's rules come along, since a class's rules are laid over them.
_OF_ACCOUNT = (
    select(AccountClass, Policy)
    .join(Account, IS_OF)
    .join(Policy, Policy.id == 1)
    .where(Account.id == bindparam("account_id"))
)


def of_account(account_id: int | None) -> AccountClass:
    """The class of an account; the default one for whoever has no account yet."""
    row = db.session.execute(_OF_ACCOUNT, {"account_id": account_id}).first() if account_id is not None else None
    return row[0] if row else default()


def default() -> AccountClass:
    """The class of every account that has none of its own."""
    return db.session.scalars(select(AccountClass).where(AccountClass.is_default)).one()


def rules_of(found: AccountClass) -> Rules:
    """A class's rules; what it does not set itself is the lab's."""
    return with_values(found.rules, policy.current())


def with_values(values: Mapping[str, Any], lab: Policy) -> Rules:
    """The lab's rules with these in their place."""
    base = Rules(
        max_hours=lab.max_hours,
        horizon_days=lab.horizon_days,
        max_gpus=lab.max_gpus,
        idle_minutes=lab.idle_minutes,
    )
    return terms.over(base, values)


def rules_for(account_id: int | None) -> Rules:
    """The rules that an account books by now."""
    row = db.session.execute(_OF_ACCOUNT, {"account_id": account_id}).first() if account_id is not None else None
    return with_values(row[0].rules, row[1]) if row else rules_of(default())


def all_with_counts() -> list[tuple[AccountClass, int]]:
    """Every class and how many accounts it holds for, the default one first."""
    query = (
        select(AccountClass, func.count(Account.id))
        .outerjoin(Account, IS_OF)
        .group_by(AccountClass.id)
        .order_by(AccountClass.is_default.desc(), AccountClass.name)
    )
    return [(found, count) for found, count in db.session.execute(query)]


def get(class_id: int) -> AccountClass:
    """One class. Raises NotFound."""
    found = db.session.get(AccountClass, class_id)
    if found is None:
        raise NotFound(_("There is no class %(id)s.", id=class_id))
    return found


def create(actor: User, name: str) -> AccountClass:
    """A new class, by the lab's rules until it gets its own. Raises InvalidInput."""
    found = AccountClass(name=_name(name), is_default=False, rules={})
    db.session.add(found)
    db.session.flush()
    audit.record(actor.username, "class.created", target(found), name=found.name)
    return found


def change(actor: User, class_id: int, values: Mapping[str, Any], *, seen: str = "") -> AccountClass:
    """Set a class's own rules, all of them; they hold from the next booking on.

    `seen`: their mark when the form was filled in. Raises Conflict if they were changed since, and InvalidInput."""
    found = get(class_id)
    db.session.refresh(found, with_for_update=True)
    if seen and seen != mark(found.rules):
        raise Conflict(_("Somebody changed these rules meanwhile."), _("Look at them anew, then change them."))
    kept = terms.checked(values)
    if changed := terms.changes(found.rules, kept):
        found.rules = kept
        db.session.flush()
        audit.record(actor.username, "class.changed", target(found), name=found.name, changed=changed)
    return found


def rename(actor: User, class_id: int, name: str) -> AccountClass:
    """Give a class another name. Raises InvalidInput."""
    found = get(class_id)
    if name.strip() != found.name:
        before, found.name = found.name, _name(name)
        db.session.flush()
        audit.record(actor.username, "class.renamed", target(found), before=before, name=found.name)
    return found


def delete(actor: User, class_id: int) -> None:
    """Remove a class; its accounts are of the default one from then on. Raises Conflict for the default one."""
    found = get(class_id)
    if found.is_default:
        raise Conflict(_("This class holds for everybody who has no other; it stays."))
    accounts = list(db.session.scalars(select(Account).where(Account.class_id == found.id).with_for_update()))
    for account in accounts:
        account.class_id = None
    db.session.flush()
    db.session.delete(found)
    db.session.flush()
    audit.record(
        actor.username, "class.deleted", target(found), name=found.name, accounts=[one.name for one in accounts]
    )


def assign(actor: User, account: Account, class_id: int) -> AccountClass:
    """Put an account into a class. Its bookings stay as they are. Raises NotFound."""
    before, found = of_account(account.id), get(class_id)
    account.class_id = None if found.is_default else found.id
    db.session.flush()
    if before.id != found.id:
        audit.record(
            actor.username, "account.class_changed", f"account:{account.name}", before=before.name, name=found.name
        )
    return found


def mark(values: Mapping[str, Any]) -> str:
    """A short text that is another for other rules: whether a form still knows what it changes."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def target(found: AccountClass) -> str:
    """What the audit calls it."""
    return f"class:{found.id}"


def _name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > NAME_LENGTH or any(ord(character) < 32 for character in name):
        raise InvalidInput(_("Use one line of at most %(count)s characters.", count=NAME_LENGTH), field="name")
    if db.session.scalar(select(AccountClass.id).where(AccountClass.name == name)):
        raise InvalidInput(_("There is a class of this name already."), field="name")
    return name
