"""What an agent does beside passes, operations and events: each in a thread of its own, none in need of another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from flask import Flask

from app.config import Settings
from app.drivers.base import LxdDriver
from workers.checker import Checker
from workers.delivery import Delivery
from workers.doorman import Doorman
from workers.evictor import Evictor
from workers.jobs import BRING, CHECK, DOORS, READ, SHARE, WORK
from workers.librarian import Librarian
from workers.reader import Reader
from workers.sampler import Sampler
from workers.sharer import Sharer
from workers.surveyor import Surveyor
from workers.terminals import Terminals
from workers.warner import Warner


def side_work(
    app: Flask, host_name: str, driver: LxdDriver, evictor: Evictor, sharer: Sharer, stop: threading.Event
) -> dict[str, Callable[[], None]]:
    """The work by name; each goes on until `stop`."""
    settings: Settings = app.extensions["berth"]
    host = app, host_name, driver
    where = settings.terminal_listen, settings.terminal_url
    sampler, terminals = Sampler(settings, host_name, evictor), Terminals(*host, *where)
    terminals.readings = sampler.readings
    return {
        "samples": partial(sampler.run, stop),
        "usage": partial(Delivery(app, host_name, sampler).run, stop),
        "warnings": partial(Warner(*host, evictor.kernel).run, stop),
        "checks": partial(Checker(*host).run, stop, CHECK),
        "doors": partial(Doorman(*host).run, stop, DOORS),
        "libraries": partial(Librarian(*host).run, stop, BRING),
        "readings": partial(Reader(*host).run, stop, READ),
        "terminals": partial(terminals.run, stop),
        "shares": partial(sharer.run, stop, SHARE, settings.tick),
        "surveys": partial(Surveyor(*host, WORK).run, stop),
    }
