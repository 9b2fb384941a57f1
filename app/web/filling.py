"""A page's form filled in with what was typed before: the page's own text, with other values in its fields."""

from __future__ import annotations

from html import escape
from html.parser import HTMLParser
from itertools import accumulate
from urllib.parse import urlsplit

Attributes = list[tuple[str, str | None]]
NEVER = {"hidden", "password", "file", "submit", "button", "image", "reset"}


def filled(page: str, action: str, typed: dict[str, list[str]]) -> str:
    """The page with `typed` (values by field) in its forms that are sent to `action`. All else stays as it is."""
    filler = _Filler(page, action, typed)
    filler.feed(page)
    filler.close()
    for start, end, text in reversed(filler.changes):
        page = page[:start] + text + page[end:]
    return page


class _Filler(HTMLParser):
    """Finds what is to be written otherwise, and where."""

    def __init__(self, page: str, action: str, typed: dict[str, list[str]]) -> None:
        super().__init__()
        self.changes: list[tuple[int, int, str]] = []
        self._lines = list(accumulate((len(line) + 1 for line in page.split("\n")), initial=0))
        self._action = action
        self._typed = typed
        self._given = {name: iter(values) for name, values in typed.items()}  # several fields of one name: in turn
        self._inside = False
        self._select = ""
        self._text: tuple[int, str] | None = None  # where a textarea's begins, and what it is to be

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        """A form begins, or a field of it stands here."""
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._inside = urlsplit(values.get("action", "")).path == self._action
        elif not self._inside:
            return
        elif tag == "input":
            self._input(attrs, values)
        elif tag == "select":
            self._select = values.get("name", "")
        elif tag == "option" and self._select in self._typed and "value" in values:
            self._tick("option", attrs, "selected", on=values["value"] in self._typed[self._select])
        elif tag == "textarea" and (text := self._next(values.get("name", ""))) is not None:
            self._text = self._here() + len(self.get_starttag_text() or ""), text

    def handle_endtag(self, tag: str) -> None:
        """It ends."""
        if tag == "form":
            self._inside = False
        elif tag == "select":
            self._select = ""
        elif tag == "textarea" and self._text:
            start, text = self._text
            first = "\n" if text.startswith(("\n", "\r")) else ""  # browsers drop the first line's end
            self.changes.append((start, self._here(), first + escape(text)))
            self._text = None

    def _input(self, attrs: Attributes, values: dict[str, str]) -> None:
        kind, name = values.get("type", "text"), values.get("name", "")
        if kind in NEVER or not name:
            return
        if kind == "checkbox" or (kind == "radio" and name in self._typed):
            self._tick("input", attrs, "checked", on=values.get("value", "on") in self._typed.get(name, ()))
        elif kind != "radio" and (text := self._next(name)) is not None:
            self._write("input", [*((key, old) for key, old in attrs if key != "value"), ("value", text)])

    def _tick(self, tag: str, attrs: Attributes, mark: str, *, on: bool) -> None:
        self._write(tag, [*((key, old) for key, old in attrs if key != mark), *([(mark, None)] if on else [])])

    def _write(self, tag: str, attrs: Attributes) -> None:
        start = self._here()
        said = "".join(f" {key}" if value is None else f' {key}="{escape(value)}"' for key, value in attrs)
        self.changes.append((start, start + len(self.get_starttag_text() or ""), f"<{tag}{said}>"))

    def _next(self, name: str) -> str | None:
        return next(self._given.get(name, iter(())), None)

    def _here(self) -> int:
        line, column = self.getpos()
        return self._lines[line - 1] + column
