"""A client that reads pages as a person does, and refuses each page that breaks a rule of the house."""

from __future__ import annotations

import contextvars
import csv
import io
import re
from collections.abc import Callable
from typing import Any

from flask import Flask
from lxml import html
from lxml.html import HtmlElement
from sqlalchemy import inspect
from werkzeug.test import TestResponse

from app.extensions import db
from app.models import User

PASSWORD = "a berth for everyone"


class Page:
    """One answer, its HTML parsed. `text` is what a person reads, in one line."""

    def __init__(self, response: TestResponse) -> None:
        self.response = response
        self.status = response.status_code
        self.headers = response.headers
        self.body = response.get_data().decode(errors="replace")  # a file need not be text
        self.location = response.headers.get("Location", "")
        is_html = response.mimetype == "text/html" and bool(self.body.strip()) and self.status // 100 != 3
        self.tree: HtmlElement | None = html.fromstring(self.body) if is_html else None

    @property
    def root(self) -> HtmlElement:
        assert self.tree is not None, f"not a page: {self.status} {self.headers.get('Content-Type')}"
        return self.tree

    @property
    def text(self) -> str:
        return _text(self.root)

    @property
    def h1(self) -> str:
        return _text(self.root.xpath("//h1")[0])

    def all(self, xpath: str) -> list[Any]:
        return self.root.xpath(xpath)

    def texts(self, xpath: str) -> list[str]:
        return [_text(element) for element in self.root.xpath(xpath)]

    def link(self, name: str) -> str:
        """The address behind the one link with this text."""
        found = [a for a in self.root.xpath("//a[@href]") if _name(a) == name]
        assert len({a.get("href") for a in found}) == 1, f"{len(found)} links {name!r}; there are {self.links()}"
        return str(found[0].get("href"))

    def lines(self) -> list[dict[str, str]]:
        """Of a CSV file, which begins with the mark that spreadsheets know UTF-8 by."""
        assert self.body.startswith("\ufeff")
        return list(csv.DictReader(io.StringIO(self.body[1:], newline="")))

    def links(self) -> list[str]:
        return [_name(a) for a in self.root.xpath("//a[@href]")]

    def form(self, button: str) -> Form:
        """The form that is sent by the button with this text."""
        buttons = [b for b in self.root.xpath("//form//button | //button[@form]") if _name(b) == button]
        assert buttons, f"no button {button!r}; there are {self.buttons()}"
        return Form(self, buttons[0])

    def buttons(self) -> list[str]:
        return [_name(b) for b in self.root.xpath("//button")]

    def check(self) -> Page:
        """Assert the rules of the house for whole pages; for fragments those that apply to them."""
        if self.tree is not None:
            check_html(self.tree, whole=self.body.lstrip().lower().startswith("<!doctype"))
        return self


class Form:
    """A form as the page offers it: fill in by label, then send."""

    def __init__(self, page: Page, button: HtmlElement) -> None:
        self.page = page
        element = button
        while element.tag != "form":
            element = element.getparent()
        self.element = element
        self.action = str(button.get("formaction") or element.get("action"))
        self.method = str(element.get("method", "get")).lower()
        fields = {name: value for name, value in element.fields.items() if value is not None}
        # Several boxes of one name, or a choice of several: a list.
        self.values: dict[str, Any] = {n: v if isinstance(v, str) else list(v) for n, v in fields.items()}
        hidden = element.xpath(".//input[@type='hidden'][@name]")
        for name in {one.get("name") for one in hidden}:  # several hidden ones of one name are all sent
            values = [one.get("value", "") for one in hidden if one.get("name") == name]
            if len(values) > 1:
                self.values[name] = values
        for other in element.xpath(".//button[@name]"):
            self.values.pop(other.get("name"), None)
        if button.get("name"):
            self.values[button.get("name")] = button.get("value", "")

    def fill(self, **by_label: Any) -> Form:
        """`fill(**{"Full name": "Li Wei"})`: values by the label that a person reads."""
        for label, value in by_label.items():
            found = [e for e in self.element.xpath(".//label[@for]") if _text(e) == label]
            assert found, f"no label {label!r}; there are {[_text(e) for e in self.element.xpath('.//label')]}"
            target = self.page.root.get_element_by_id(found[0].get("for"))
            name = target.get("name")
            if not isinstance(value, bool):
                self.values[name] = str(value)
                continue
            ticked = self.values.get(name, [])
            others = [v for v in ([ticked] if isinstance(ticked, str) else ticked) if v != target.get("value", "on")]
            self.values[name] = [*others, target.get("value", "on")] if value else others
        return self


class Client:
    """A browser without JavaScript. Each request has a context of its own, so a session of its own."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.raw = app.test_client()
        self._token: tuple[str | None, str] | None = None  # of which session, and what

    def get(self, url: str, **kwargs: Any) -> Page:
        return self._request("GET", url, **kwargs)

    def post(self, url: str, data: dict[str, Any] | None = None, *, csrf: bool = True, **kwargs: Any) -> Page:
        """POST a form; the CSRF token is taken from a page of ours unless `csrf` is off."""
        values = dict(data or {})
        if csrf and "csrf_token" not in values:
            values["csrf_token"] = self.csrf_token()
        return self._request("POST", url, data=values, **kwargs)

    def submit(self, form: Form, **kwargs: Any) -> Page:
        if form.method == "get":
            return self.get(form.action, query_string=form.values, **kwargs)
        return self.post(form.action, form.values, **kwargs)

    def follow(self, page: Page) -> Page:
        """The page that an answer redirects to."""
        assert page.status in {302, 303}, f"no redirect: {page.status} {page.body[:300]}"
        return self.get(page.location)

    def login_as(self, user: User, password: str = PASSWORD) -> Client:
        """Sign in on the sign-in page; the factories' people all have PASSWORD."""
        self.post("/logout")
        answer = self.post("/login", {"username": user.username, "password": password})
        assert answer.status == 303, f"{user.username} cannot sign in: {answer.text}"
        return self

    def csrf_token(self) -> str:
        """The token of the session, read from a page when that is another one than before."""
        if self._token is None or self._token[0] != self._session():
            page = self._request("GET", "/register")
            self._token = self._session(), str(page.all("//input[@name='csrf_token']/@value")[0])
        return self._token[1]

    def _session(self) -> str | None:
        cookie = self.raw.get_cookie(self.app.config["SESSION_COOKIE_NAME"])
        return cookie.value if cookie else None

    def _request(self, method: str, url: str, *, htmx: bool = False, **kwargs: Any) -> Page:
        if htmx:
            kwargs["headers"] = {"HX-Request": "true"} | kwargs.get("headers", {})
        db.session.commit()  # what the test prepared; its savepoint must not lie under the request's
        response = contextvars.Context().run(self.raw.open, url, method=method, **kwargs)
        _forget_columns()  # what the request changed, the test shall read anew
        return Page(response).check()


def _forget_columns() -> None:
    """As expire_all, but loaded relationships stay: ours never load by themselves."""
    for row in db.session:
        db.session.expire(row, [column.key for column in inspect(row).mapper.column_attrs])


RULES: list[Callable[[HtmlElement, bool], None]] = []


def check_html(tree: HtmlElement, *, whole: bool) -> None:
    """Every rule of the house for HTML."""
    for rule in RULES:
        rule(tree, whole)


def _rule(function: Callable[[HtmlElement, bool], None]) -> Callable[[HtmlElement, bool], None]:
    RULES.append(function)
    return function


@_rule
def _one_heading(tree: HtmlElement, whole: bool) -> None:
    headings = tree.xpath("//h1")
    if not whole:
        assert not headings, "a fragment has no h1"
        return
    assert len(headings) == 1, f"{len(headings)} h1"
    title = _text(tree.xpath("//title")[0])
    assert title.removeprefix("Error: ").removeprefix("错误：").startswith(_text(headings[0])), f"title {title!r}"
    assert tree.get("lang"), "no language"
    assert len(tree.xpath("//main")) == 1, "one main"


@_rule
def _unique_ids(tree: HtmlElement, _whole: bool) -> None:
    ids = [str(found) for found in tree.xpath("//@id")]
    twice = {found for found in ids if ids.count(found) > 1}
    assert not twice, f"ids used twice: {twice}"


@_rule
def _labels(tree: HtmlElement, _whole: bool) -> None:
    for field in tree.xpath("//input[not(@type='hidden')] | //select | //textarea"):
        labelled = field.get("aria-label") or field.get("aria-labelledby") or field.xpath("ancestor::label")
        labelled = labelled or (field.get("id") and tree.xpath("//label[@for=$id]", id=field.get("id")))
        assert labelled, f"no label: {html.tostring(field, encoding='unicode')[:200]}"
    for element in tree.xpath("//a[@href] | //button"):
        assert _name(element), f"no name: {html.tostring(element, encoding='unicode')[:200]}"


@_rule
def _nothing_inline(tree: HtmlElement, _whole: bool) -> None:
    assert not tree.xpath("//@style"), "style="
    assert not tree.xpath("//style | //script[not(@src)]"), "inline style or script"
    for element in tree.iter():
        for name, value in element.attrib.items():
            assert not re.match(r"on|hx-on", name), f"{name}="
            assert not str(value).lower().strip().startswith("javascript:"), f"{name}={value}"


@_rule
def _forms(tree: HtmlElement, _whole: bool) -> None:
    for form in tree.xpath("//form"):
        shown = html.tostring(form, encoding="unicode")[:200]
        assert form.get("action"), f"no action: {shown}"
        method = form.get("method", "get").lower()
        assert method in {"get", "post"}, f"method {method}"
        tokens = form.xpath(".//input[@name='csrf_token'][string-length(@value) > 20]")
        assert bool(tokens) == (method == "post"), f"CSRF token in a form by {method}: {shown}"


def _text(element: HtmlElement) -> str:
    return re.sub(r"\s+", " ", element.text_content()).strip()


def _name(element: HtmlElement) -> str:
    return str(element.get("aria-label") or _text(element))
