"""A daemon (two forks, a session of its own) that ignores whatever signal can be ignored."""

import os
import signal

from kit import Tries, attack, holder, keeping


def hold(node: str) -> None:
    def prepare() -> Tries:
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        if os.fork():
            os._exit(0)
        return keeping(os.open(node, os.O_RDONLY))

    holder("holder", prepare)


attack(hold)
