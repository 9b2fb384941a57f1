"""Finders of text that no translator sees: in templates and in Python."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from jinja2 import Environment, nodes

from app import errors

MARKS = {"_", "_l", "gettext", "lazy_gettext", "ngettext", "pgettext"}
REFUSALS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
SPOKEN = {"title", "aria-label", "aria-description", "placeholder", "alt", "label", "data-label", "summary"}
SILENT = {"code", "kbd", "pre", "script", "style"}  # what is typed or run, not read
NAMES = re.compile(r"\b(Berth|GPU|CPU|LXD|SSH)\b")  # the same in every language
WORD = re.compile(r"[^\W\d_]")
SENTENCE = re.compile(r"[A-Z][a-z]|[a-z] [a-z]")  # a constant that reads like words, and not like a code
EXPRESSION = "\ufffc"
KEYWORDS = {"message", "label", "description", "hint", "brief", "title", "lead", "button"}
DOCUMENT = {"Field", "SpecTree", "SecuritySchemeData"}  # the API's description, for programmers: in English


def bare_in_template(path: Path, root: Path) -> Iterator[str]:
    """Each piece of text, or of a spoken attribute, that stands in a template and not in a call for its translation."""
    where = path.relative_to(root)
    reader = _Reader()
    reader.feed("".join(_markup(path.read_text())))
    reader.close()
    yield from (f"{where}:{line}: {text}" for line, text in reader.found)
    tree = _environment().parse(path.read_text())
    yield from (f"{where}:{line}: {text}" for line, text in _constants(tree))


def bare_in_python(folder: Path, root: Path) -> Iterator[str]:
    """Each literal that is flashed, refused with, or put on a form's field as it stands."""
    for path in sorted(folder.rglob("*.py")):
        for call in _calls(path):
            name = _name(call)
            if name in DOCUMENT:
                continue
            said = call.args if name in REFUSALS else call.args[: name == "flash" or name.endswith("Field")]
            for node in [*said, *(keyword.value for keyword in call.keywords if keyword.arg in KEYWORDS)]:
                if WORD.search(NAMES.sub("", _literal(node))):
                    yield f"{path.relative_to(root)}:{node.lineno}: {name}({ast.unparse(node)})"


def marked(folder: Path) -> Iterator[tuple[str, str]]:
    """Where Python asks for a translation, and of what; an f-string's source, which no catalogue has, included."""
    for path in sorted(folder.rglob("*.py")):
        for call in _calls(path):
            if _name(call) in MARKS and call.args:
                at = f"{path.relative_to(folder)}:{call.lineno}"
                count = 2 if _name(call) in {"ngettext", "pgettext"} else 1
                texts = [_literal(node) for node in call.args[:count]]
                yield from ((at, text) for text in texts[_name(call) == "pgettext" :] if text)


def _calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def _name(call: ast.Call) -> str:
    return getattr(call.func, "id", "") or getattr(call.func, "attr", "")


def _literal(node: ast.expr) -> str:
    """The text of a constant, or the source of an f-string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ast.unparse(node) if isinstance(node, ast.JoinedStr) else ""


def _environment() -> Environment:
    return Environment(extensions=["jinja2.ext.i18n"], autoescape=True)


def _markup(source: str) -> Iterator[str]:
    """A template's HTML with a sign for each expression, without statements and what {% trans %} holds."""
    translated = False
    block: list[str] = []
    for _line, kind, value in _environment().lex(source):
        if kind == "data":
            yield "\n" * value.count("\n") if translated else value
        elif kind == "block_end":
            translated = {"trans": True, "endtrans": False}.get(block[0], translated)
            block = []
        elif kind == "variable_begin" and not translated:
            yield EXPRESSION
        elif kind == "name":
            block.append(value)
        elif kind in {"block_begin", "variable_end"}:
            block = []
        if kind != "data":
            yield "\n" * value.count("\n")


def _constants(tree: nodes.Template) -> Iterator[tuple[int, str]]:
    """Strings within expressions that read like words."""
    silent: list[nodes.Node] = [call for call in tree.find_all(nodes.Call) if getattr(call.node, "name", "") in MARKS]
    silent += [part for call in tree.find_all(nodes.Filter) if call.name in {"moment", "replace"} for part in call.args]
    silent += tree.find_all(nodes.Compare)
    hidden = {id(part) for node in silent for part in [node, *node.find_all(nodes.Const)]}
    for part in tree.find_all(nodes.Const):
        if isinstance(part.value, str) and id(part) not in hidden and SENTENCE.search(NAMES.sub("", part.value)):
            yield part.lineno, part.value


class _Reader(HTMLParser):
    """Collects what would be read or spoken as it stands in the source."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, str]] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.silent += tag in SILENT
        given = dict(attrs)
        pressed = tag == "input" and given.get("type") in {"submit", "reset", "button"}
        for name in (SPOKEN | ({"value"} if pressed else set())) & given.keys():
            self._look(f'{name}="{given[name]}"', given[name] or "")

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in SILENT

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self._look(data.strip(), data)

    def _look(self, shown: str, text: str) -> None:
        if WORD.search(NAMES.sub("", text.replace(EXPRESSION, " "))):
            self.found.append((self.getpos()[0], shown))
