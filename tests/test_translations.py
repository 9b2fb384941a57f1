"""Every sentence that a person can read goes through the catalogues, and the catalogues are complete."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.pofile import read_po

from tests import wording

ROOT = Path(__file__).resolve().parent.parent
APP = ROOT / "app"
CATALOGUES = sorted(APP.glob("translations/*/LC_MESSAGES/messages.po"))
PLACEHOLDER = re.compile(r"%\((\w+)\)s|%%")
CHINESE = "\u4e00-\u9fff"
SAME_IN_CHINESE = {
    "CPU",
    "GPU",
    "LXD",
    "GiB",
    "SSH",
    "Windows",
    "macOS",
    "Linux",
    "VS Code",
    "GPU %(number)s",
    "%(size)s GiB",
    "EEE d",
    "HH:mm",
    "EEE HH:mm",
    "EEE HH:mm:ss",
}
# Asian text takes its own signs; a space or the end after it does not make an ASCII one right.
HALF_WIDTH = re.compile(rf"[{CHINESE}](?:\)s)?[,;:!?.()]|[,;:!?()][{CHINESE}]|\"")


@pytest.fixture(scope="module")
def words() -> Catalog:
    """What the sources say now, found as pybabel finds it."""
    mappings: list[dict[str, str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["babel"]["mappings"]
    methods = [(mapping["pattern"], mapping["method"]) for mapping in mappings]
    options = {m["pattern"]: {k: v for k, v in m.items() if k not in {"pattern", "method"}} for m in mappings}
    found = Catalog()
    for file, line, ids, _comments, context in extract_from_dir(
        ROOT, methods, options, {**DEFAULT_KEYWORDS, "_l": None}, directory_filter=_ours
    ):
        found.add(ids, locations=[(file, line)], context=context)
    assert len(found) > 500, "the mapping in pyproject.toml finds next to nothing"
    return found


def _ours(folder: str) -> bool:
    return Path(folder) == ROOT or APP in (Path(folder), *Path(folder).parents)


@pytest.fixture(params=CATALOGUES, ids=lambda path: path.parts[-3])
def catalogue(request: pytest.FixtureRequest) -> Catalog:
    path: Path = request.param
    with path.open("rb") as file:
        return read_po(file, locale=path.parts[-3])


def test_there_is_a_chinese_catalogue() -> None:
    assert [path.parts[-3] for path in CATALOGUES] == ["zh_Hans_CN"]


def test_nothing_is_missing_empty_or_doubtful(words: Catalog, catalogue: Catalog) -> None:
    wrong = []
    for message in _entries(words):
        there = catalogue.get(_key(message), message.context)
        if there is None or not all(_strings(there)):
            wrong.append(f"{_key(message)!r} ({message.locations[0][0]}) has no translation")
        elif there.fuzzy:
            wrong.append(f"{_key(message)!r} is marked fuzzy: pybabel leaves it out")
    assert not wrong, "\n".join(wrong)


def test_nothing_is_left_over(words: Catalog, catalogue: Catalog) -> None:
    left = [_key(m) for m in _entries(catalogue) if words.get(_key(m), m.context) is None]
    assert not [*left, *catalogue.obsolete], f"no source says this any more: {[*left, *catalogue.obsolete]}"


def test_placeholders_are_those_of_the_source(catalogue: Catalog) -> None:
    wrong = []
    for message in _entries(catalogue):
        source = str(message.id[-1] if isinstance(message.id, tuple) else message.id)
        wanted = set(PLACEHOLDER.findall(source))
        wrong += [
            f"{source!r} -> {text!r}"
            for text in _strings(message)
            if set(PLACEHOLDER.findall(text)) != wanted or (wanted and "%" in PLACEHOLDER.sub("", text))
        ]
    assert not wrong, "\n".join(wrong)


def test_chinese_is_chinese(catalogue: Catalog) -> None:
    """No English left standing, no half-width signs beside Chinese characters, no space at an end."""
    wrong = []
    for message in _entries(catalogue):
        for text in _strings(message):
            foreign = not re.search(f"[{CHINESE}]", text) and re.search("[A-Za-z]{2}", PLACEHOLDER.sub("", text))
            if (foreign and text not in SAME_IN_CHINESE) or HALF_WIDTH.search(text) or text != text.strip():
                wrong.append(f"{_key(message)!r} -> {text!r}")
    assert not wrong, "\n".join(wrong)


def test_sources_are_whole_sentences_in_one_line(words: Catalog) -> None:
    """A line break from a template, or a %(name)s that {% trans %} made %%(name)s, would show on the page."""
    wrong = [_key(m) for m in _entries(words) if "\n" in _key(m) or "%%(" in _key(m) or re.search(r"%[sd]", _key(m))]
    assert not wrong


def test_pybabel_overlooks_nothing(words: Catalog) -> None:
    """It does not see into a call within a call, and says nothing."""
    known = {text for m in _entries(words) for text in (m.id if isinstance(m.id, tuple) else (m.id,))}
    wrong = [f"{at}: {text}" for at, text in wording.marked(APP) if text not in known]
    assert not wrong, "\n".join(wrong)


def test_no_bare_text_in_templates() -> None:
    wrong = [line for path in sorted(APP.glob("templates/**/*.html")) for line in wording.bare_in_template(path, APP)]
    assert not wrong, "\n".join(wrong)


def test_no_bare_text_in_python() -> None:
    """What is flashed, refused, or asked for in a form is translated where it is written."""
    wrong = [line for folder in ("web", "services") for line in wording.bare_in_python(APP / folder, APP)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("<p>\n{{ x }} hours</p>", [":1: \ufffc hours"]),
        ('<a title="Go">{{ _("Go") }}</a>', [':1: title="Go"']),
        ('<input type="submit" value="Save"><input type="hidden" value="save">', [':1: value="Save"']),
        ('{% set title = "Not booked" %}', [":1: Not booked"]),
        ('{{ _("Yes") if x else "No way" }}', [":1: No way"]),
        ('{% trans n=1 %}All {{ n }} of it{% endtrans %}<p aria-label="{{ _("Days") }}">Berth · 64 GPU</p>', []),
        ('{# a note #}{{ x | moment("EEE d MMM") }}<code>ls /dev</code>{% if x.type == "TextField" %}{% endif %}', []),
    ],
)
def test_the_finder_reads_templates(tmp_path: Path, source: str, found: list[str]) -> None:
    path = tmp_path / "page.html"
    path.write_text(source)
    assert [line.removeprefix("page.html") for line in wording.bare_in_template(path, tmp_path)] == found


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('flash("Saved.")', 1),
        ('flash(_("Saved."), "error")', 0),
        ('raise InvalidInput(f"No {name}.", field="name")', 1),
        ('raise errors.RuleRefused(_("Too long."), "Shorten it.")', 1),
        ('raise NotAllowed(_("Too long."), hint="Shorten it.")', 1),
        ('StringField("Name", [required()])', 1),
        ('StringField(_l("Name"), [Length(max=3, message="Too long")])', 1),
        ('raise ValueError("for programmers")', 0),
    ],
)
def test_the_finder_reads_python(tmp_path: Path, source: str, count: int) -> None:
    (tmp_path / "page.py").write_text(source)
    assert len(list(wording.bare_in_python(tmp_path, tmp_path))) == count


def _entries(catalogue: Catalog) -> Iterator[Message]:
    return (message for message in catalogue if message.id)


def _key(message: Message) -> str:
    found: Any = message.id[0] if isinstance(message.id, tuple) else message.id
    return str(found)


def _strings(message: Message) -> tuple[str, ...]:
    return tuple(message.string) if isinstance(message.string, (tuple, list)) else (message.string or "",)
