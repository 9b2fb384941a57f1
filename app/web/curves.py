"""The last hour of a GPU as a line: drawn here, for pages that may carry no style and no script."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from app.language import gettext as _
from app.language import ngettext
from app.services.activity import MINUTES, Curve

STEP, HEIGHT, EDGE = 2, 24, 2  # of the drawing: a minute's width, its height, and what the line keeps from the edges


@dataclass(frozen=True)
class Drawn:
    """An SVG's paths: `line` where something was measured, `unknown` at the bottom where nothing was; and in words."""

    width: int
    height: int
    line: str
    unknown: str
    words: str


def drawn(curve: Curve) -> Drawn:
    """The line of a curve. 0 % lies on the ground; what is not known is dashed, and never looks like it."""
    known: list[str] = []
    gaps: list[str] = []
    at = 0
    for is_known, run in groupby(curve, key=_is_known):
        shares = list(run)
        end = at + len(shares)
        if is_known:
            shares.append(shares[-1])  # each minute's value up to its end, so that a single one can be seen too
            points = [f"{x} {_YS[share or 0]}" for x, share in zip(_XS[at:], shares, strict=False)]
            known.append("M" + "L".join(points))
        else:
            gaps.append(f"M{_XS[at]} {_YS[0]}H{_XS[end]}")
        at = end
    return Drawn(STEP * len(curve), HEIGHT, "".join(known), "".join(gaps), _words(curve))


def _is_known(share: int | None) -> bool:
    return share is not None


def _words(curve: Curve) -> str:
    shares = [share for share in curve if share is not None]
    if not shares:
        return _("No data in the last hour")
    text = _(
        "Last hour: %(mean)s %% busy, at most %(peak)s %%", mean=round(sum(shares) / len(shares)), peak=max(shares)
    )
    missing = len(curve) - len(shares)
    more = ngettext("no data for %(num)s minute", "no data for %(num)s minutes", missing) if missing else ""
    return _("%(text)s; %(more)s", text=text, more=more) if more else text


# Where each minute begins, and how high each percentage lies, as text: a page has thousands of them.
_XS = [f"{STEP * minute}" for minute in range(MINUTES + 1)]
_YS = [f"{HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * share / 100:.1f}" for share in range(101)]
