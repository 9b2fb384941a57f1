"""Who messages are sent to in tests: a real mail server and a real web server, on loopback, that keep what they get."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

from tests.runtime.running import free_port


class Mailbox:
    """What the mail server took. `answer`: what it says to a recipient; `gate`: when shut, it takes its time."""

    def __init__(self) -> None:
        self.letters: list[EmailMessage] = []
        self.answer = "250 OK"
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()

    async def handle_RCPT(self, _server, _session, envelope, address, _options) -> str:  # noqa: N802
        self.asked.set()
        await asyncio.to_thread(self.gate.wait, 30)
        if self.answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.answer

    async def handle_DATA(self, _server, _session, envelope) -> str:  # noqa: N802
        self.letters.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 taken"


@contextmanager
def mail_server() -> Iterator[tuple[str, Mailbox]]:
    """Its address as BERTH_SMTP wants it, and what it took."""
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield f"smtp://127.0.0.1:{controller.port}", box
    finally:
        box.gate.set()
        controller.stop()


class Hook:
    """What the web server took. `status`: what it answers; `location`: where it sends people."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.status, self.location = 200, ""


@contextmanager
def web_server() -> Iterator[tuple[int, Hook]]:
    """Its port, and what it took."""
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(hook.status)
            if hook.location:
                self.send_header("Location", hook.location)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], hook
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
