"""A simulated machine's terminal: it says back what is typed."""

from __future__ import annotations

import queue

from app.drivers.terminal import LARGEST

PROMPT = "root@{name}:~# "


class FakePty:
    """A Pty behind which nothing runs."""

    def __init__(self, name: str) -> None:
        self.name, self.size = name, (0, 0)
        self._line = b""
        self._said: queue.Queue[bytes] = queue.Queue()
        self._say(f"{name} is simulated: nothing runs here, it only says back what you type.\r\n")
        self._say(PROMPT.format(name=name))

    def read(self) -> bytes:
        """The next piece; b"" at its end."""
        return self._said.get()

    def write(self, data: bytes) -> None:
        """Type this; `exit` ends it."""
        for piece in data.decode(errors="replace").replace("\r", "\r\n").splitlines(keepends=True):
            self._say(piece)
            self._line += piece.encode()
            if piece.endswith("\n"):
                line, self._line = self._line.strip(), b""
                if line == b"exit":
                    self.close()
                    return
                self._say(PROMPT.format(name=self.name))

    def resize(self, columns: int, rows: int) -> None:
        """The window has this size now."""
        self.size = (columns, rows)

    def close(self) -> None:
        """End it."""
        self._said.put(b"")

    def _say(self, text: str) -> None:
        self._said.put(text.encode()[:LARGEST])
