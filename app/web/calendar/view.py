"""What the calendar's address asks for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

from flask import request, url_for

from app import clock
from app.errors import InvalidInput
from app.services import periods
from app.services.calendar import Wanted
from app.services.periods import Kind, Period
from app.web import local_times, times
from app.web.calendar.blueprint import address

NOW = "now"  # in place of a day: the one that is


@dataclass(frozen=True)
class View:
    """Which days, which hosts, and how. The field that holds the day is named for the kind: `?month=2026-11-04`."""

    kind: Kind
    day: date
    open_hosts: tuple[str, ...]
    model: str
    host: str
    mine: bool
    as_list: bool
    chosen_day: bool

    @property
    def wanted(self) -> Wanted:
        """What of it the services want to know."""
        return Wanted(frozenset(self.open_hosts), self.model, self.host, self.mine, self.as_list)

    @property
    def period(self) -> Period:
        """The days, in the viewer's zone."""
        return periods.period(self.kind, self.day, times.viewer_zone())

    def fields(self, kind: str = "", on: date | None = None) -> dict[str, Any]:
        """The address's fields, with another kind or day if given."""
        kind = Kind(kind or self.kind)
        chosen = on or (self.day if self.chosen_day else None)
        return {
            kind.value: chosen.isoformat() if chosen else NOW if kind != Kind.WEEK else "",
            "open": ",".join(self.open_hosts),
            "model": self.model,
            "host": self.host,
            "mine": "1" if self.mine else "",
            "view": "list" if self.as_list else "",
        }

    def url(self, kind: str = "", on: date | None = None, endpoint: str = "calendar.index", **more: Any) -> str:
        """The address of this view with something changed; an empty value drops it."""
        values = self.fields(kind, on) | more
        if endpoint == "calendar.index":
            return address(self._page, **values)
        return url_for(endpoint, **{name: value for name, value in values.items() if value != ""})

    @cached_property
    def _page(self) -> str:
        return url_for("calendar.index")

    def today(self) -> str:
        """The address of what is now."""
        more: dict[str, Any] = {self.kind.value: NOW if self.kind != Kind.WEEK else ""}
        return self.url(**more)

    def toggled(self, host: str) -> str:
        """The address with a host opened, or closed if it is open."""
        others = [name for name in self.open_hosts if name != host]
        return self.url(open=",".join(others if host in self.open_hosts else [*others, host]))


def read() -> View:
    """The view of this request; whatever is no day means now."""
    args = request.args
    today = clock.now().astimezone(times.viewer_zone()).date()
    kind = next((one for one in (Kind.DAY, Kind.MONTH) if one in args), Kind.WEEK)
    try:
        day = local_times.parse_date(args.get(kind, ""), kind)
        chosen = True
    except InvalidInput:
        day, chosen = today, False
    return View(
        kind=kind,
        day=day,
        open_hosts=tuple(dict.fromkeys(_known_length(",".join(args.getlist("open"))[:4096].split(",")[:64]))),
        model=args.get("model", "")[:120],
        host=args.get("host", "")[:63],
        mine=args.get("mine") == "1",
        as_list=args.get("view") == "list" and kind != Kind.MONTH,
        chosen_day=chosen,
    )


def _known_length(names: Iterable[str]) -> list[str]:
    return [name for name in names if 0 < len(name) <= 63]
