"""An agent's terminals in this process, and a browser's end of one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from flask import Flask
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from app.drivers.base import LxdDriver
from app.extensions import db, transaction
from app.models import Host, Instance, SignIn, User
from app.services import signins, terminals
from tests.runtime.running import wait_for
from workers.terminals import Terminals

ORIGIN = "https://berth.example.org"
PATIENCE = 30.0  # seconds, for a busy machine


@dataclass
class Desk:
    """Where tickets are handed out, and where they are used."""

    core: Flask
    server: Terminals

    @property
    def url(self) -> str:
        with self.core.app_context():
            return db.session.scalars(db.select(Host)).first().terminal_url  # type: ignore[union-attr]

    def sign_in(self, username: str) -> int:
        with self.core.app_context(), transaction():
            user = db.session.scalars(db.select(User).where(User.username == username)).one()
            signins.begin(user)
            return (
                db.session.scalars(db.select(SignIn.id).where(SignIn.user_id == user.id).order_by(-SignIn.id)).first()
                or 0
            )

    def ticket(self, sign_in: int, machine: str, origin: str = ORIGIN) -> str:
        with self.core.app_context(), transaction():
            instance = db.session.scalars(db.select(Instance).where(Instance.name == machine)).one()
            return terminals.ticket(db.session.get_one(SignIn, sign_in), instance, origin)

    def connection(self, headers: dict[str, str]) -> ClientConnection:
        made = connect(self.url, additional_headers=headers, compression=None, max_size=1 << 16)
        return ExitStack().enter_context(made)

    def open(self, ticket: str, origin: str | None = ORIGIN) -> Screen:
        more = {} if origin is None else {"Origin": origin}
        connection = self.connection(more)
        screen = Screen(connection)
        connection.send(json.dumps({"ticket": ticket, "columns": 91, "rows": 33}))
        return screen


class Screen:
    """What a browser has got."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.text, self.states = "", list[str]()
        self.shows = True

    def hear(self, seconds: float = PATIENCE) -> bool:
        """One message; whether there can be more. Raises TimeoutError."""
        try:
            message = self.connection.recv(timeout=seconds)
        except ConnectionClosed:
            return False
        if isinstance(message, str):
            self.states.append(json.loads(message)["state"])
        else:
            self.text += message.decode(errors="replace")
            if self.shows:
                with suppress(ConnectionClosed):
                    self.connection.send(json.dumps({"shown": len(message)}))
        return True

    def until(self, text: str, seconds: float = PATIENCE) -> str:
        """Until it shows this."""
        deadline = time.monotonic() + seconds
        while text not in self.text:
            try:
                assert self.hear(deadline - time.monotonic()), f"closed: {self.states} {self.text!r}"
            except TimeoutError as error:
                raise AssertionError(f"no {text!r} within {seconds} s: {self.states} {self.text!r}") from error
        return self.text

    def until_closed(self, seconds: float = PATIENCE) -> str:
        """Until it is closed; why."""
        deadline = time.monotonic() + seconds
        while self.hear(max(0.1, deadline - time.monotonic())):
            pass
        return self.states[-1] if self.states else ""

    def type(self, text: str) -> None:
        self.connection.send(text.encode())


@contextmanager
def serving(core: Flask, host: str, driver: LxdDriver, confirm: float = 0.3) -> Iterator[Desk]:
    """The agent's part, until the block ends."""
    stop = threading.Event()
    server = Terminals(core, host, driver, ("127.0.0.1", 0), "")
    thread = threading.Thread(target=server.run, args=(stop, confirm))
    thread.start()
    desk = Desk(core, server)
    try:
        wait_for(lambda: desk.url, why="it serves")
        yield desk
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
