"""One GPU of the live pages in words: its states, who has it, and what it is at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from flask import url_for
from markupsafe import Markup, escape

from app import clock
from app.language import gettext as _
from app.language import ngettext
from app.models import GpuState, User
from app.services.activity import LOOK_BACK
from app.services.live_gpu import Live, Process
from app.services.live_seen import throttled_by
from app.services.words import apart
from app.web import states, times
from app.web.bookings.words import length
from app.web.calendar.moments import short
from app.web.curves import Drawn, drawn

PROGRAMS = 4  # of those that one sees, so many by name
LONGEST_NAME = 40  # characters of a program's name, which its user chose
ORDER = ("unbooked", "in_use", "idle", "attaching", "not_attached", "free", "not_offered", "maintenance",
         "out_of_service", "quarantine")  # fmt: skip
_LINK = Markup('<a href="%s">%s</a>')


@dataclass(frozen=True)
class Row:
    """One GPU for one reader. `alone`: no other GPU of the host has its number; one that was put into another slot is
    another one, and what is gone keeps its number."""

    one: Live
    viewer: User
    moment: Callable[[datetime], str]
    alone: bool

    @property
    def name(self) -> str:
        """`GPU 2`, and where that is not enough its place: `GPU 2 (0000:03:00.0)`."""
        gpu = self.one.gpu
        name = _("GPU %(number)s", number=gpu.minor)
        return name if self.alone else apart(name, gpu.pci_address)

    @property
    def mine(self) -> bool:
        """Whether the reader has it now."""
        return self.one.held is not None and self.one.held.user_id == self.viewer.id

    @property
    def idle(self) -> bool:
        """Whether somebody has it and does nothing."""
        return self.one.code == "idle"

    @property
    def tags(self) -> list[tuple[str, str]]:
        """Codes of app.web.states with their words: what it is, then what else is to be known."""
        one = self.one
        found = [(one.code, self._word())]
        off = {GpuState.QUARANTINE: "quarantine", GpuState.MAINTENANCE: "out_of_service"}.get(GpuState(one.gpu.state))
        if off is not None and off != one.code:
            found.append((off, ""))
        if not one.known:
            found.append(("no_data", self._no_data()))
        return found + self._ailments()

    def _ailments(self) -> list[tuple[str, str]]:
        """What makes programs on it slow or wrong. That it runs at its power limit is no ailment: the best do."""
        values = self.one.values
        why = throttled_by(values) or ()
        found = []
        if "heat" in why:  # the hardware says so of itself too, then
            found.append(("slowed", _("Slowed down by heat")))
        elif "hardware" in why:
            found.append(("slowed", _("Slowed down by its hardware")))
        if count := values.get("ecc_errors"):
            found.append(("memory_errors", ngettext("%(num)s memory error", "%(num)s memory errors", count)))
        return found

    def _word(self) -> str:
        one = self.one
        if one.code == "not_attached" and one.held is not None:
            since = int((clock.now() - one.held.starts_at).total_seconds())
            return _("Booked, not attached for %(length)s", length=length(since))
        if one.code == "idle":
            seconds = int(one.idle.total_seconds())
            more = one.idle.total_seconds() > 0.95 * LOOK_BACK.total_seconds()
            text = length(int(LOOK_BACK.total_seconds()) if more else seconds - seconds % 60)
            return _("Idle for over %(length)s", length=text) if more else _("Idle %(length)s", length=text)
        if one.code == "free" and one.free_until is not None:
            return _("Free until %(when)s", when=short(one.free_until))
        return ""

    def _no_data(self) -> str:
        gpu = self.one.gpu
        if gpu.trouble and gpu.is_fresh(clock.now()):
            return _("Cannot be read: %(why)s", why=gpu.trouble) if self.viewer.is_admin else _("Cannot be read")
        return _("No data since %(when)s", when=short(gpu.seen_at)) if gpu.seen_at else _("Never measured")

    @property
    def holder(self) -> Markup:
        """Who has it until when; it leads to the booking, for those who may see that."""
        held = self.one.held
        if held is None:
            return Markup()
        owner = escape(_("You") if self.mine else held.owner)
        if self.mine or self.viewer.is_admin:
            owner = _LINK % (url_for("bookings.show", booking_id=held.booking_id), owner)
        return escape(_("%(who)s, until %(until)s")) % {"who": owner, "until": self.moment(held.ends_at)}

    @property
    def book_url(self) -> str:
        """The form for it, from now."""
        return url_for("bookings.new", gpu=self.one.gpu.id) if self.one.code == "free" else ""

    @property
    def busy(self) -> str:
        """`83 %`, or of one that is split up how much of it has programs; "" where that is not known."""
        values = self.one.values
        share, parts, used = (values.get(name) for name in ("utilisation", "mig", "mig_in_use"))
        if share is None and parts and used is not None:
            return _("%(used)s of %(all)s parts", used=used, all=parts)
        return "" if share is None else f"{share} %"

    @property
    def memory(self) -> str:
        """`12.3 of 48 GiB`."""
        used, total = (self.one.values.get(name) for name in ("memory_used", "memory_total"))
        if used is None or not total:
            return ""
        return _("%(used)s of %(total)s GiB", used=_gib(used), total=round(total / 1024))

    @property
    def power(self) -> str:
        """`231 of 300 W`."""
        values = self.one.values
        watts, limit = (values.get(name) for name in ("power", "power_limit"))
        if watts is None:
            return ""
        if limit and "power" in (throttled_by(values) or ()):
            return _("%(used)s of %(limit)s W, at its limit", used=round(watts), limit=round(limit))
        return _("%(used)s of %(limit)s W", used=round(watts), limit=round(limit)) if limit else f"{round(watts)} W"

    @property
    def temperature(self) -> str:
        """`61 °C`."""
        degrees = self.one.values.get("temperature")
        return "" if degrees is None else f"{degrees} °C"

    @property
    def curve(self) -> Drawn:
        """Its last hour."""
        return drawn(self.one.curve)

    @property
    def programs(self) -> list[str]:
        """Those that the reader sees, the largest first, and how many more there are."""
        seen = self.one.processes
        found = [self._program(process) for process in seen[:PROGRAMS]]
        if len(seen) > PROGRAMS:
            found.append(_("and %(count)s more", count=len(seen) - PROGRAMS))
        return found

    def _program(self, process: Process) -> str:
        parts = [process.name[:LONGEST_NAME] or "?"]
        if process.memory is not None:
            parts.append(_("%(size)s GiB", size=_gib(process.memory)))
        if process.utilisation is not None:
            parts.append(f"{process.utilisation}\N{NO-BREAK SPACE}%")
        if not self.viewer.is_admin:
            return " · ".join(parts)
        where = process.instance or _("the host itself")
        if process.instance and not process.booked:
            where = _("%(machine)s, without a booking", machine=where)
        return _("%(what)s (%(where)s, PID %(pid)s)", what=" · ".join(parts), where=where, pid=process.pid)


def rows(found: Sequence[Live], viewer: User) -> list[Row]:
    """GPUs for a reader."""
    moment = times.moments()
    number = Counter((one.gpu.host_id, one.gpu.minor) for one in found)
    return [Row(one, viewer, moment, number[one.gpu.host_id, one.gpu.minor] == 1) for one in found]


def counter() -> Callable[[Sequence[Live]], list[tuple[str, str]]]:
    """`5 in use`, `2 free`: how many GPUs of a host are what, in a fixed order. Many hosts of a page say the same:
    it is put into words once."""
    known: dict[tuple[str, int], str] = {}

    def text(code: str, count: int) -> str:
        if (code, count) not in known:
            state = str(states.state_of(code).word).lower()
            known[code, count] = _("%(number)s %(state)s", number=count, state=state)
        return known[code, count]

    def counts(found: Sequence[Live]) -> list[tuple[str, str]]:
        number = Counter(one.code for one in found)
        number["no_data"] = sum(not one.known for one in found)
        return [(code, text(code, number[code])) for code in (*ORDER, "no_data") if number[code]]

    return counts


def models(found: Sequence[Live]) -> str:
    """`8 × NVIDIA RTX A6000`; of several models, each."""
    number = Counter(one.gpu.model for one in found)
    return ", ".join(f"{count} × {model}" for model, count in sorted(number.items()))


def _gib(mebibytes: float) -> str:
    return f"{mebibytes / 1024:.1f}"  # as both languages write it; asked hundreds of times a page
