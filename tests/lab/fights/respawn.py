"""A holder that is another process as fast as can be, and beside it a thousand others that come and go."""

import os
import time
from collections.abc import Callable

from fight import done, hold, leave
from kit import checked, libc

PAUSE = 0.0005


def buries(ready: Callable[[], None]) -> None:
    checked(libc.prctl(36, 1, 0, 0, 0))  # orphans become its children
    kept = hold()
    if not os.fork():
        while True:
            time.sleep(PAUSE)
            if os.fork():
                os._exit(0)
    os.close(kept)
    ready()
    while True:
        time.sleep(PAUSE)
        if not os.fork():
            os._exit(0)
        os.waitpid(-1, 0)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


leave(buries)
done()
