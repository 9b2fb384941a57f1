"""The rules of the house that a machine can check. Each says what to do instead."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from app.config import Settings

ROOT = Path(__file__).parent.parent
CODE = sorted([*ROOT.glob("app/**/*.py"), *ROOT.glob("workers/**/*.py")])
TEMPLATES = sorted(ROOT.glob("app/templates/**/*.html"))
FILE_LINES, FUNCTION_LINES = 250, 35


def named(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its signature and docstring: prose is not what makes it long."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_no_file_has_outgrown_one_room() -> None:
    grown = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in CODE}
    assert {name: lines for name, lines in grown.items() if lines > FILE_LINES} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{function.name} {body_lines(function)}"
        for path in CODE
        for function in functions(path)
        if body_lines(function) > FUNCTION_LINES
    ]
    assert long == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("app/services/**/*.py")), ids=lambda path: path.stem)
def test_services_leave_committing_to_the_edges(path: Path) -> None:
    assert not re.search(r"session\.(commit|rollback)\(|\btransaction\(", path.read_text())


def test_outside_libraries_have_one_door_each() -> None:
    doors = {"pylxd": "app/drivers/lxd", "pynvml": "app/drivers", "rq": "workers", "redis": "workers"}
    strays = [
        f"{path.relative_to(ROOT)} imports {library}"
        for path in CODE
        for library, door in doors.items()
        if re.search(rf"^\s*(from|import) {library}\b", path.read_text(), re.MULTILINE)
        and not str(path.relative_to(ROOT)).startswith((door, "app/queue.py"))
    ]
    assert strays == []


def test_nothing_opens_a_path_through_a_containers_root() -> None:
    """A link in there resolves on the host. LXD's own root is the exception: holders.nodes.devices_dir."""
    found = [str(path.relative_to(ROOT)) for path in CODE if re.search(r"/root\b", _without_comments(path))]
    assert set(found) <= {"app/drivers/holders/nodes.py"}


def _without_comments(path: Path) -> str:
    """A file's string literals: where a path would be."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    docs = {
        ast.get_docstring(node, clean=False)
        for node in nodes
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    }
    return "\n".join(
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in docs
    )


@pytest.mark.parametrize("path", TEMPLATES, ids=named(TEMPLATES))
def test_templates_keep_to_the_content_security_policy(path: Path) -> None:
    text = path.read_text()
    for rule, why in {
        r"\sstyle=": "a class in app.css",
        r"<style\b": "a rule in app.css",
        r"<script(?![^>]*\bsrc=)": "a hook in app.js",
        r"\son[a-z]+=": "a data- hook in app.js",
        r"hx-on\b|hx-vals=.js:": "a data- hook in app.js",
        r"\|\s*safe\b": "escaped text",
        r"""(?:src|href)=["']https?://""": "a file under app/static",
    }.items():
        found = re.search(rule, text)
        assert found is None, f"{found.group(0)!r}: use {why}"


def test_the_readme_names_every_setting_and_no_other() -> None:
    table = dict(re.findall(r"^\| `([A-Z_]+)` \| (.+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert table == {field.metadata["env"]: field.metadata["doc"] for field in fields(Settings)}


def test_the_readmes_map_names_what_is_there() -> None:
    text = (
        (ROOT / "README.md").read_text().partition("## A map of the house")[2].partition("```")[2].partition("```")[0]
    )
    names = re.findall(r"^\s*([a-z_]+(?:\.py|/))", text, re.MULTILINE)
    assert names
    missing = [name for name in names if not (ROOT / name).exists() and not (ROOT / "app" / name).exists()]
    assert missing == []


def test_every_dependency_says_why_it_is_there() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for name in tomllib.loads(text)["project"]["dependencies"]:
        (line,) = [line for line in text.splitlines() if f'"{name}"' in line]
        assert "#" in line, name
