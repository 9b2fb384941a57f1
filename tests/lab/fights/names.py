"""Holders whose names and control groups say that they are somebody else; the first argument is another machine."""

import os
import sys
from collections.abc import Callable

from fight import done, hold, leave, wait
from groups import enter, hierarchies
from kit import WORK, checked, libc

WORK.mkdir(parents=True)
PLACES = hierarchies()
TITLES = (b") R 1 1\n(", b"[lxc monitor] x", b"1 (init) S 0")
GROUPS = (f"lxc.payload.{sys.argv[2]}", f"lxc.payload.{sys.argv[2]} 1", "a: b (deleted)")
for title, group in zip(TITLES, GROUPS, strict=True):

    def body(ready: Callable[[], None], title: bytes = title, group: str = group) -> None:
        checked(libc.prctl(15, title, 0, 0, 0))
        enter(group, PLACES)
        kept = hold()
        wait(ready)
        os.close(kept)

    leave(body)
done()
