"""Look and act on LXD while others do: its own client, an agent that died with its request under way, another one."""

from __future__ import annotations

import time
from collections.abc import Callable

from app.drivers.lxd.errors import RefusedError, UnfinishedError

TRIES, PAUSE = 200, 0.2  # seconds between them: a change that hangs has an instance to itself for 30 s in LXD


def look_and_act(act: Callable[[], object]) -> None:
    """`act` looks, and asks for what that look calls for. LXD refuses it where somebody else was faster: as long as it
    is at that, it is waited for; what is there already, or gone, a second look will show. Raises RefusedError."""
    surprised = False
    for _ in range(TRIES):
        try:
            act()
        except UnfinishedError:
            raise
        except RefusedError as error:
            if not error.taken and (surprised or not error.overtaken):
                raise
            surprised = surprised or not error.taken
            trouble = error
        else:
            return
        time.sleep(PAUSE)
    raise trouble
