"""What every answer has in common: headers, static files, compression, error pages, languages, zones, the banner."""

import base64
import gzip
import hashlib
import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask, render_template_string
from flask_babel import force_locale

from app import clock, create_app, errors
from app.config import BadSettings, Settings
from app.errors import DomainError
from app.language import gettext, ngettext, pgettext
from app.models import User
from app.web.security import CSP
from tests.conftest import settings_for
from tests.factories import make_admin, make_host, make_user
from tests.page import Client, Page

STATIC = Path(__file__).parents[2] / "app" / "static"


@pytest.mark.parametrize(("language", "book", "gpus"), [("en", "Book &lt;b&gt;", "2 GPUs"), ("zh_Hans_CN", None, None)])
def test_a_templates_sentences_are_in_the_readers_language_with_values_escaped(
    app: Flask, language: str, book: str | None, gpus: str | None
) -> None:
    """Each way that a template has to say one, within a loop too; `None`: as Python says it there."""
    source = """{% for host in ["<b>"] %}{{ _("Book %(host)s", host=host) }}{% endfor %}|
{{- ngettext("%(num)s GPU", "%(num)s GPUs", 2) }}|{{ pgettext("start of a week", "d MMM") }}|
{%- trans name="<b>" %}Book {{ name }}{% endtrans %}|{{ _("100%%") }}"""
    with app.test_request_context(), force_locale(language):
        found = render_template_string(source).split("|")
        assert found == [
            book or gettext("Book %(host)s", host="&lt;b&gt;"),
            gpus or ngettext("%(num)s GPU", "%(num)s GPUs", 2),
            pgettext("start of a week", "d MMM"),
            "Book &lt;b&gt;",  # no sentence of ours
            "100%",
        ]
    assert book or "Book" not in found[0]


def test_every_answer_carries_the_headers(client: Client) -> None:
    client.login_as(make_user())
    for url in ("/quota", "/nix", "/people", "/login", "/static/app.css"):
        headers = client.get(url).headers
        assert headers["Content-Security-Policy"] == CSP
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "Strict-Transport-Security" not in headers
    headers = client.get("/quota").headers
    assert headers["Cache-Control"] == "no-store"
    assert {"Cookie", "HX-Request"} <= {part.strip() for part in headers["Vary"].split(",")}


def test_behind_tls_cookies_are_bound_to_the_host(shared_db: str, tmp_path: Path) -> None:
    secure = create_app(settings_for(shared_db, tmp_path, BERTH_HTTPS="1"))
    answer = secure.test_client().get("/login", headers={"X-Forwarded-Proto": "https"})
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-session=")
    assert "Secure" in cookie
    assert "Domain" not in cookie
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=31536000")


def test_without_a_database_named_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="berth up"):
        create_app(Settings.load({"BERTH_DATA": str(tmp_path), "SECRET_KEY": "x"}))


def test_what_was_vendored_is_what_it_was() -> None:
    for line in (STATIC / "vendor" / "SHA384").read_text().splitlines():
        digest, name = line.split()
        content = (STATIC / "vendor" / name).read_bytes()
        assert digest == "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()
        version = re.search(r"-(\d+\.\d+\.\d+)(\.min)?\.(js|css)", name)
        assert version
        if name.startswith("htmx"):
            assert f'version:"{version[1]}"'.encode() in content


def test_assets_are_few_small_kept_for_ever_and_ours(client: Client) -> None:
    page = client.get("/login")
    urls = page.all("//link[@rel='stylesheet']/@href | //script/@src")
    assert len(urls) <= 3
    size = 0
    for url in [*urls, page.all("//link[@rel='stylesheet']/@href")[0].replace("app.css", "icons.svg")]:
        assert url.startswith("/static/"), url
        answer = client.raw.get(url, headers={"Accept-Encoding": "gzip"})
        assert "immutable" in answer.headers["Cache-Control"]
        assert "max-age=31536000" in answer.headers["Cache-Control"]
        assert answer.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(answer.data) == (STATIC / url.partition("?")[0].removeprefix("/static/")).read_bytes()
        size += len(answer.data)
    assert size < 32_000
    unversioned = client.raw.get("/static/app.css")
    assert "immutable" not in unversioned.headers["Cache-Control"]
    assert "Content-Encoding" not in unversioned.headers


def test_pages_are_compressed_for_who_takes_it(client: Client) -> None:
    answer = client.raw.get("/register", headers={"Accept-Encoding": "br, gzip;q=0.5"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in answer.headers["Vary"]
    assert b"<h1>" in gzip.decompress(answer.data)
    refused = client.raw.get("/register", headers={"Accept-Encoding": "gzip;q=0"})
    assert "Content-Encoding" not in refused.headers


def test_htmx_is_told_to_evaluate_nothing(client: Client) -> None:
    config = json.loads(client.get("/login").all("//meta[@name='htmx-config']/@content")[0])
    assert (config["allowEval"], config["allowScriptTags"], config["selfRequestsOnly"]) == (False, False, True)
    assert (config["includeIndicatorStyles"], config["historyCacheSize"]) == (False, 0)


ERRORS: list[tuple[DomainError, int]] = [
    (errors.InvalidInput("Brief.", "Hint."), 422),
    (errors.RuleRefused("Brief.", "Hint."), 422),
    (errors.QuotaExceeded("Brief.", "Hint."), 422),
    (errors.SlotTaken("Brief.", "Hint."), 409),
    (errors.Conflict("Brief.", "Hint."), 409),
    (errors.NotFound("Brief.", "Hint."), 404),
    (errors.NotAllowed("Brief.", "Hint."), 403),
    (errors.Unavailable("Brief.", "Hint."), 503),
]


def _raising(app: Flask, error: Exception) -> None:
    def view() -> str:
        raise error

    view.policy = "public"  # type: ignore[attr-defined]
    app.add_url_rule("/raise", "raise", view)


@pytest.mark.parametrize(("error", "status"), ERRORS)
def test_a_refusal_is_a_page_or_a_sentence(app: Flask, client: Client, error: DomainError, status: int) -> None:
    _raising(app, error)
    page = client.get("/raise")
    assert (page.status, page.h1) == (status, "Brief.")
    assert "Hint." in page.text
    fragment = client.get("/raise", htmx=True)
    assert (fragment.status, fragment.text) == (status, "Brief. Hint.")
    assert (fragment.headers["HX-Retarget"], fragment.headers["HX-Reswap"]) == ("#flash", "outerHTML")


def test_a_bug_shows_a_reference_and_the_log_the_rest(app: Flask, client: Client, caplog) -> None:
    _raising(app, RuntimeError("the password is hunter2"))
    page = client.get("/raise")
    assert (page.status, page.h1) == (500, "Something went wrong in Berth.")
    assert "hunter2" not in page.body
    reference = re.search(r"the reference ([0-9a-f]{8})\.", page.text)
    assert reference
    assert reference[1] in caplog.text
    assert "hunter2" in caplog.text


def test_the_usual_mistakes_have_pages(app: Flask, client: Client) -> None:
    assert client.get("/nix").h1 == "There is no such page."
    wrong_way = client.get("/logout")
    assert (wrong_way.status, wrong_way.headers["Allow"]) == (405, "OPTIONS, POST")
    large = client.raw.post("/login", data={"username": "x" * 1_100_000})
    assert large.status_code == 413
    assert Page(large).check().h1 == "That is more than Berth accepts (1 MB)."
    assert client.get("/api/v1/nix").headers["Content-Type"] == "application/problem+json"


def test_without_its_database_the_portal_says_so(tmp_path: Path) -> None:
    away = create_app(settings_for("postgresql://postgres@/none?host=/nowhere", tmp_path))
    browser = away.test_client()
    with browser.session_transaction() as session:
        session["_user_id"] = "a key"
    for url in ("/quota", "/login"):
        page = Page(browser.get(url)).check()
        assert (page.status, page.h1) == (503, "Berth cannot reach its database.")
        assert "Try again in a minute." in page.text
    fragment = browser.get("/quota", headers={"HX-Request": "true"})
    assert fragment.status_code == 503
    assert browser.get("/static/app.css").status_code == 200


def test_the_language_follows_the_browser_then_the_choice(client: Client) -> None:
    def lang(**headers: str) -> str:
        return client.get("/login", headers=headers).all("/html/@lang")[0]

    assert lang() == "en"
    for accepted in ("zh-CN,zh;q=0.9,en;q=0.8", "zh", "zh-Hans;q=0.9, fr"):
        assert lang(**{"Accept-Language": accepted}) == "zh-Hans-CN", accepted
    assert lang(**{"Accept-Language": "fr, de"}) == "en"
    page = client.get("/register?x=1")
    answer = client.submit(page.form("中文"))
    assert answer.location == "/register?x=1"
    assert lang() == "zh-Hans-CN"
    client.submit(client.get("/login").form("English"))
    assert lang(**{"Accept-Language": "zh-CN"}) == "en"


def test_a_persons_language_wins_and_is_remembered(client: Client) -> None:
    user = make_user()
    client.login_as(user)
    client.submit(client.get("/quota").form("中文"))
    assert user.locale == "zh_Hans_CN"
    client.raw.delete_cookie("locale")
    assert client.get("/quota").all("/html/@lang") == ["zh-Hans-CN"]
    client.post("/language", {"locale": "xx"})
    assert user.locale == "zh_Hans_CN"


def test_simulated_hosts_are_told_on_every_page(client: Client) -> None:
    words = "Simulated hosts"
    make_host("lab01")
    assert words not in client.get("/login").text
    make_host("demo", endpoint="sim:")
    assert words in client.get("/login").text
    assert words in client.login_as(make_user()).get("/nix").text


def test_navigation_shows_where_one_is_and_admins_more(client: Client) -> None:
    page = client.login_as(make_user()).get("/quota")
    assert page.texts("//a[@aria-current='page']") == ["Quota"]
    assert "Rules" not in page.links()
    page = client.login_as(make_admin()).get("/rules")
    assert page.texts("//a[@aria-current='page']") == ["Rules"]
    assert {"People", "Hosts", "Rules", "Audit"} <= set(page.links())


def test_hosts_that_need_somebody_are_counted_for_admins(client: Client) -> None:
    client.login_as(make_admin())
    assert "Hosts" in client.get("/quota").links()
    make_host("lab01", seen_at=clock.now())
    make_host("lab02", seen_at=clock.now() - timedelta(minutes=7))
    assert "Hosts (1 alarm)" in client.get("/quota").links()
    make_host("lab03")
    assert "Hosts (2 alarms)" in client.get("/quota").links()


def test_messages_come_once_and_with_fragments_too(app: Flask, client: Client) -> None:
    user = make_user()
    client.login_as(user)
    client.post("/settings/sign-out-others")
    assert "Other browsers are signed out." in client.get("/quota").text
    assert "Other browsers are signed out." not in client.get("/quota").text


def test_the_frame_costs_four_queries_at_most(client: Client, count_queries) -> None:
    user: User = make_admin()
    client.login_as(user)
    with count_queries() as queries:
        client.get("/nix")
    assert len([q for q in queries if "SAVEPOINT" not in q.upper()]) <= 4, (
        queries
    )  # who, who waits, alarms, any simulated


def test_the_clock_is_held_for_requests_too(client: Client, freeze) -> None:
    moment = clock.now().replace(microsecond=0)
    freeze(moment)
    user = make_user()
    client.login_as(user)
    assert user.last_login_at == moment


def test_tests_leave_nothing_behind(shared_engine: sa.Engine) -> None:
    with shared_engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM users")) == 0


def test_a_fresh_database_is_migrated_and_empty(fresh_db: str) -> None:
    engine = sa.create_engine(fresh_db)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM policies")) == 1
        assert connection.scalar(sa.text("SELECT count(*) FROM users")) == 0
    engine.dispose()
