"""Which GPUs a booking gets, and the refusal when somebody else has them: what is taken, by whom, what would work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import bindparam, select
from sqlalchemy.orm import joinedload

from app.errors import Alternative, Clash, InvalidInput, RuleRefused, SlotTaken
from app.extensions import db
from app.language import gettext as _
from app.language import ngettext
from app.models import Gpu
from app.services import openings
from app.services.rules import check
from app.services.rules.terms import Rules
from app.services.windows import Window, floor_to_grid
from app.services.words import gpu_label, gpu_list, when

# Built once: each booking runs them with its account locked.
_GPUS = (
    select(Gpu)
    .where(Gpu.id.in_(bindparam("gpu_ids", expanding=True)))
    .options(joinedload(Gpu.host, innerjoin=True))
    .order_by(Gpu.id)
)
_LOCKED_GPUS = _GPUS.with_for_update(of=Gpu, key_share=True).execution_options(populate_existing=True)


@dataclass(frozen=True)
class Ask:
    """What somebody wants: these GPUs, or `count` of any (of `model`, on `host`, where named).

    `starts_at` None means now. `account`: the team's that pays, else one's own.
    `request_key` makes a form that is sent twice book once.
    """

    ends_at: datetime
    starts_at: datetime | None = None
    gpu_ids: tuple[int, ...] = ()
    count: int = 1
    model: str = ""
    host: str = ""
    note: str = ""
    account: str = ""
    request_key: str | None = None


@dataclass(frozen=True)
class Frame:
    """What a choice of GPUs is bound by: the window, how late anything may end, the grid (seconds), the hosts where the
    person has a machine, and the rules: which GPUs the account may use."""

    window: Window
    latest: datetime
    slot: int
    machines: frozenset[int] = frozenset()
    rules: Rules = field(default_factory=Rules)


def named_gpus(ask: Ask, rules: Rules, *, lock: bool = False) -> list[Gpu]:
    """The GPUs that were named, checked: they exist, on one host, and may be booked, by this account too."""
    wanted = sorted(set(ask.gpu_ids))
    gpus = list(db.session.scalars(_LOCKED_GPUS if lock else _GPUS, {"gpu_ids": wanted}))
    missing = set(wanted) - {gpu.id for gpu in gpus}
    if missing:
        raise InvalidInput(
            _("There is no GPU %(id)s.", id=min(missing)), _("Choose one from the calendar."), field="gpus"
        )
    if len({gpu.host_id for gpu in gpus}) > 1:
        raise InvalidInput(
            _("These GPUs are on different hosts; one booking takes GPUs of one host."),
            _("Make one booking for each host."),
            field="gpus",
        )
    for gpu in gpus:
        if not openings.is_usable(gpu):
            raise RuleRefused(
                _("%(gpu)s on %(host)s is out of service.", gpu=gpu_label(gpu), host=gpu.host.name),
                _("Choose another GPU."),
                rule="out_of_service",
                gpu=gpu.id,
            )
    _refuse_forbidden(gpus, rules)
    return gpus


def any_gpus(ask: Ask, frame: Frame) -> list[Gpu]:
    """`count` free GPUs of one host that match; raises SlotTaken with what is free next."""
    gpus = enough_gpus(ask, frame.rules)
    window = frame.window
    taken = openings.busy(gpus, window.starts_at, frame.latest)
    chosen = openings.choose(gpus, taken, window, ask.count, frame.machines)
    if chosen:
        return chosen
    later = openings.earliest(gpus, taken, ask.count, window.seconds, window.starts_at, frame.latest, frame.slot)
    brief = ngettext(
        "No host has %(num)s free GPU from %(start)s to %(end)s.",
        "No host has %(num)s free GPUs from %(start)s to %(end)s.",
        ask.count,
        start=when(window.starts_at),
        end=when(window.ends_at),
    )
    raise SlotTaken(
        brief,
        next_hint(later),
        alternatives=(later,) if later else (),
        next_free=later.starts_at if later else None,
    )


def enough_gpus(ask: Ask, rules: Rules) -> list[Gpu]:
    """Those that match and may be used, free or not; refused unless one host has `count` of them."""
    gpus = _permitted(openings.usable_gpus(ask.model, ask.host), rules)
    most = max((len(group) for group in openings.by_host(gpus).values()), default=0)
    if most < ask.count:
        raise _no_such_gpus(ask, most)
    return gpus


def _permitted(gpus: list[Gpu], rules: Rules) -> list[Gpu]:
    """Those that the account may use; raises RuleRefused if there are some, but none of them."""
    found = [gpu for gpu in gpus if rules.permits(gpu.model, gpu.host.name)]
    if not found:
        _refuse_forbidden(gpus[:1], rules)
    return found


def _refuse_forbidden(gpus: Sequence[Gpu], rules: Rules) -> None:
    for refusal in check.of_gpus(rules, frozenset(gpu.model for gpu in gpus), gpus[0].host.name if gpus else ""):
        raise refusal


def _no_such_gpus(ask: Ask, most: int) -> RuleRefused | InvalidInput:
    if most == 0 and not (ask.model or ask.host):
        return InvalidInput(_("There is no GPU to book."), _("An admin adds hosts and puts GPUs into service."))
    if most == 0:
        return InvalidInput(_("There is no such GPU to book."), _("Choose another model or host."), field="model")
    return RuleRefused(
        _("No host has %(count)s such GPUs; the most on one host is %(most)s.", count=ask.count, most=most),
        _("Take fewer GPUs."),
        rule="host_size",
        limit=most,
    )


def claimed(ask: Ask, frame: Frame) -> Sequence[Gpu]:
    """The GPUs to book, their rows locked and seen to be free after that: nobody can take them in between."""
    if ask.gpu_ids:
        gpus = named_gpus(ask, frame.rules, lock=True)
        refuse_clashes(gpus, frame)
        return gpus
    while True:  # each turn sees what the last one lost to, and ends when nothing is left to choose
        chosen = any_gpus(ask, frame)
        attempt = db.session.begin_nested()
        locked = list(db.session.scalars(_LOCKED_GPUS, {"gpu_ids": [gpu.id for gpu in chosen]}))
        if not openings.any_overlap([gpu.id for gpu in locked], frame.window) and all(map(openings.is_usable, locked)):
            attempt.commit()
            return locked
        attempt.rollback()  # lets go of the locks: kept while others are taken, two such turns could wait in a circle


def refuse_clashes(gpus: Sequence[Gpu], frame: Frame, *, ignore_booking: int | None = None) -> None:
    """Raise SlotTaken if somebody else has one of the GPUs in the window, with what would work instead."""
    ids = [gpu.id for gpu in gpus]
    if not openings.any_overlap(ids, frame.window):
        return None
    found = openings.overlapping(ids, frame.window, ignore_booking=ignore_booking)
    if not found:
        return _refuse_maintenance(gpus, frame)
    clashes = tuple(
        Clash(gpu_label(a.gpu), a.gpu.host.name, a.booking.user.display_name, a.starts_at, a.ends_at) for a in found
    )
    alternatives = _alternatives(gpus, frame)
    same = next((a for a in alternatives if a.kind == "later"), None)
    raise SlotTaken(
        _(
            "%(gpus)s on %(host)s is taken from %(start)s to %(end)s (%(owner)s).",
            gpus=gpu_list({a.gpu_id: a.gpu for a in found}.values()),
            host=found[0].gpu.host.name,
            start=when(found[0].starts_at),
            end=when(found[0].ends_at),
            owner=found[0].booking.user.display_name,
        ),
        next_hint(same),
        clashes=clashes,
        alternatives=alternatives,
        next_free=same.starts_at if same else None,
    )


def _refuse_maintenance(gpus: Sequence[Gpu], frame: Frame) -> None:
    blocks = openings.blocked([gpu.id for gpu in gpus], frame.window)
    if not blocks:
        return
    alternatives = _alternatives(gpus, frame)
    same = next((a for a in alternatives if a.kind == "later"), None)
    reason = blocks[0].maintenance.reason
    raise SlotTaken(
        _(
            "%(gpus)s on %(host)s is in maintenance from %(start)s to %(end)s.",
            gpus=gpu_list({block.gpu_id: block.gpu for block in blocks}.values()),
            host=blocks[0].gpu.host.name,
            start=when(blocks[0].starts_at),
            end=when(blocks[0].ends_at),
        ),
        " ".join([*([_("Reason: %(reason)s.", reason=reason)] if reason else []), next_hint(same)]),
        alternatives=alternatives,
        next_free=same.starts_at if same else None,
    )


def _alternatives(gpus: Sequence[Gpu], frame: Frame) -> tuple[Alternative, ...]:
    """What would work instead: the same GPUs later, others of the model at the same time, the same ones shorter."""
    window, latest, slot = frame.window, frame.latest, frame.slot
    found: list[Alternative] = []
    ids = tuple(gpu.id for gpu in gpus)
    one_model = len({gpu.model for gpu in gpus}) == 1
    same_model = openings.usable_gpus(gpus[0].model) if one_model else []
    same_model = [gpu for gpu in same_model if frame.rules.permits(gpu.model, gpu.host.name)]
    taken = openings.busy({*gpus, *same_model}, window.starts_at, latest)
    others = openings.choose(same_model, taken, window, len(gpus), frozenset({gpus[0].host_id}))
    if others:
        found.append(
            Alternative(
                others[0].host.name, tuple(gpu.id for gpu in others), window.starts_at, window.ends_at, "elsewhere"
            )
        )
    later = openings.earliest(gpus, taken, len(gpus), window.seconds, window.starts_at, latest, slot)
    if later:
        found.append(later)
    first = min((span.starts_at for gpu_id in ids for span in taken.get(gpu_id, ())), default=window.ends_at)
    first = floor_to_grid(first, slot)  # an end that a form sends back as it is
    if window.starts_at + timedelta(seconds=slot) <= first < window.ends_at:
        found.append(Alternative(gpus[0].host.name, ids, window.starts_at, first, "shorter"))
    return tuple(found)


def next_hint(later: Alternative | None) -> str:
    """When so much is free next, if it is within the days that can be booked."""
    if later is None:
        return _("Nothing is free for that long within the days that can be booked. Try a shorter time.")
    return _("Free next for that long: %(start)s on %(host)s.", start=when(later.starts_at), host=later.host)
