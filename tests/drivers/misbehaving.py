"""A server that speaks LXD's language and answers as a test tells it to."""

from __future__ import annotations

import json
import socketserver
from http.server import BaseHTTPRequestHandler
from typing import Any

from app.drivers.base import GpuInfo, Tag

GPU = GpuInfo("0000:01:00.0", "NVIDIA RTX A6000", 0)
TAG = Tag(1, 2, 3)
RUNNING, DONE = {"status_code": 103}, {"status_code": 200}


def instance(**more: Any) -> dict[str, Any]:
    return {
        "name": "t1", "type": "container", "status": "Running", "architecture": "x86_64", "ephemeral": False,
        "profiles": [], "description": "", "config": {}, "devices": {}, "expanded_config": {}, "expanded_devices": {},
    } | more  # fmt: skip


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers from `answers`: (method, path) → body, or (code, body), or a list of either, one per request."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        self.answers: dict[tuple[str, str], Any] = {
            ("GET", "/1.0"): {
                "auth": "trusted",
                "environment": {"server_name": "x", "server_version": "5.0.2", "server_pid": 0},
            },
            ("GET", "/1.0/operations"): {},
        }
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        super().__init__(path, Handler)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "test"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        key = (self.command, self.path.partition("?")[0])
        self.server.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        self.server.requests.append(key)
        answer = self.server.answers.get(key, (404, "not found"))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
            answer = answer()
        code, body = answer if isinstance(answer, tuple) else (200, answer)
        if isinstance(body, bytes):
            data = body
        elif code >= 400:
            data = json.dumps({"type": "error", "error": body, "error_code": code}).encode()
        elif code == 202:
            data = json.dumps({"type": "async", "operation": f"/1.0/operations/{body}", "metadata": {}}).encode()
        else:
            data = json.dumps({"type": "sync", "status_code": 200, "metadata": body}).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", "e1")
        self.end_headers()
        self.wfile.write(data)

    do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815
