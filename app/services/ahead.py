"""When a host has a GPU free again, which may be after what the calendar shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from app.services import timeline
from app.services.spans import held
from app.services.timeline import Frame
from app.services.timeline_parts import ShownGpu, Spans

LOOK_AHEAD = timedelta(days=4)  # beyond what is shown


@dataclass(frozen=True)
class Ahead:
    """What lies in what is shown, and after it. The latter is read only where a host is booked up to there: it would
    be a third of all that a full week reads."""

    spans: Spans
    frame: Frame

    def next_free(self, gpus: Sequence[ShownGpu]) -> datetime | None:
        """When the first of some GPUs is free, from now; None if that is further off than LOOK_AHEAD, or now is not
        shown."""
        now, end = self.frame.now, self.frame.end
        if not (gpus and self.frame.start <= now < end):
            return None
        inside = timeline.next_free(gpus, self.spans, now, end)
        return inside or timeline.next_free(gpus, self._to_come, now, end + LOOK_AHEAD)

    @cached_property
    def _to_come(self) -> Spans:
        return held(self.frame.now, self.frame.end + LOOK_AHEAD)
