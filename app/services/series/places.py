"""Which GPUs each booking of a series gets: the same ones as often as they are free. Pure arithmetic."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from app.models import Gpu
from app.services import openings
from app.services.openings import Busy
from app.services.windows import Window


def chosen(
    gpus: Sequence[Gpu], taken: Busy, windows: Sequence[Window], count: int, machines: frozenset[int]
) -> list[tuple[int, ...]]:
    """For each window the ids of `count` GPUs of one host, () where there are none.

    As for one booking, a host with a machine of the person's comes first; then that with the GPUs that are free most
    often. Where those are not free, others take their place, of the same host if it has some."""
    own = _favourites(gpus, taken, windows, count, machines)
    preferred = machines | {gpu.host_id for gpu in own}
    booked: Busy = {gpu_id: list(spans) for gpu_id, spans in taken.items()}  # and by the series itself, as it grows
    found = []
    for window in windows:
        free = openings.free_gpus(own, booked, window)
        picked = free if own and len(free) == len(own) else _others(gpus, own, booked, window, count, preferred)
        for gpu in picked:
            booked.setdefault(gpu.id, []).append(window)
        found.append(tuple(gpu.id for gpu in picked))
    return found


def _favourites(
    gpus: Iterable[Gpu], taken: Busy, windows: Sequence[Window], count: int, machines: frozenset[int]
) -> list[Gpu]:
    """The `count` GPUs of one host that are free in the most windows."""
    best: tuple[bool, int] = (False, 0)
    own: list[Gpu] = []
    for host_id, group in openings.by_host(gpus).items():
        free = {gpu.id: _free_in(taken.get(gpu.id, ()), windows) for gpu in group}
        few = sorted(group, key=lambda gpu: -len(free[gpu.id]))[:count]
        together = len(set.intersection(*(free[gpu.id] for gpu in few))) if len(few) == count else 0
        if together and (rank := (host_id in machines, together)) > best:
            best, own = rank, few
    return own


def _free_in(spans: Sequence[Window], windows: Sequence[Window]) -> set[int]:
    """Which of the windows, by number, share no moment with a GPU's spans; those are in order and share none either."""
    ends = [span.ends_at for span in spans]
    first = ((number, window, bisect_right(ends, window.starts_at)) for number, window in enumerate(windows))
    return {number for number, window, at in first if at == len(spans) or spans[at].starts_at >= window.ends_at}


def _others(
    gpus: Sequence[Gpu], own: list[Gpu], booked: Busy, window: Window, count: int, preferred: frozenset[int]
) -> list[Gpu]:
    if own:
        same_host = [gpu for gpu in gpus if gpu.host_id == own[0].host_id]
        mine = sorted(same_host, key=lambda gpu: gpu not in own)  # as many of the usual ones as are free
        if len(free := openings.free_gpus(mine, booked, window)) >= count:
            return free[:count]
    return openings.choose(gpus, booked, window, count, preferred)
