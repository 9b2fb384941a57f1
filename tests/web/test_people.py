"""Admins approve, refuse, grant, suspend; each by forms and links alone."""

from datetime import timedelta

import pytest

from app import clock
from app.extensions import db
from app.models import AuditEvent, Role, SignIn, User, UserState
from app.services import accounts, instances, inventory
from app.services.rules import classes
from tests.factories import make_host, make_instance, make_pending, make_template, make_user
from tests.page import PASSWORD, Client, Page


def _approve(client: Client, hours: str = "100") -> Page:
    form = client.get("/people").form("Approve Li Wei").fill(**{"Hours per month for Li Wei": hours})
    return client.submit(form)


def test_approving_with_hours_says_so_and_the_badge_is_one_less(client: Client, admin: User) -> None:
    make_pending("liwei", full_name="Li Wei", reason="my thesis")
    make_pending("chenyu", full_name="Chen Yu")
    page = client.get("/people")
    assert "People (2 waiting)" in page.links()
    assert "my thesis" in page.text
    page = client.follow(_approve(client))
    assert page.texts("//*[@id='done']")[0].startswith("Approved Li Wei with 100 h")
    assert page.all("//*[@id='done']/@tabindex") == ["-1"]
    assert "People (1 waiting)" in page.links()
    user = accounts.get("liwei")
    assert user.state == UserState.ACTIVE
    assert user.account is not None
    assert (user.account.name, user.account.balance, user.account.monthly) == ("liwei", 360_000, 360_000)
    assert client.login_as(user).get("/quota").text.count("0 of 100 GPU-hours used") == 1


def test_an_approval_can_be_undone_for_ten_minutes(client: Client, admin: User, freeze) -> None:
    make_pending("liwei", full_name="Li Wei")
    page = client.follow(_approve(client))
    page = client.follow(client.submit(page.form("Undo")))
    assert "Li Wei waits for approval again" in page.text
    user = accounts.get("liwei")
    assert (user.state, user.account and user.account.balance) == (UserState.PENDING, 0)
    page = client.follow(_approve(client, "50"))
    assert accounts.get("liwei").account.balance == 180_000, "approved anew in the same month"
    start = clock.now()
    freeze(start + timedelta(minutes=11))
    assert "Undo" not in client.get("/people?approved=liwei").buttons()
    answer = client.post("/people/liwei/undo")
    assert answer.status == 422
    assert "cannot be undone any more" in answer.text
    assert accounts.get("liwei").state == UserState.ACTIVE


def test_an_approval_makes_a_machine_too_and_the_choice_is_remembered(
    client: Client, admin: User, woken: list[str]
) -> None:
    assert not client.get("/people").all("//select[@name='template']")
    for name in ("lab01", "lab02"):
        make_template(make_host(name, seen_at=clock.now()), "base")
    make_template(inventory.host("lab01"), "desktop", desktop=True)
    for name in ("liwei", "chenyu", "mei"):
        make_pending(name, full_name=name.title())
    page = client.get("/people")
    assert page.texts("//select[@id='template-liwei']/option") == [
        "from desktop, where there is room", "from base, where there is room", "none now",
    ]  # fmt: skip
    assert page.all("//select[@id='template-liwei']/option[@selected]/@value") == ["desktop"]
    page = client.follow(client.submit(page.form("Approve Liwei").fill(**{"A machine for Liwei": "base"})))
    assert "Their machine liwei is on lab01: look how far it is." in page.text
    assert page.link("look how far it is") == "/machines/liwei"
    assert woken == ["lab01"]
    assert instances.get(accounts.get("liwei"), "liwei").image.startswith("berth-template-")
    assert page.all("//select[@id='template-mei']/option[@selected]/@value") == ["base"]
    page = client.follow(client.submit(page.form("Approve Mei").fill(**{"A machine for Mei": ""})))
    assert page.link("Make their machine") == "/machines/new?owner=mei"
    assert page.all("//select[@id='template-chenyu']/option[@selected]/@value") == [""]
    form = client.get("/machines/new?owner=mei").form("Create machine")
    assert (form.values["owner"], form.values["name"], form.values["place"]) == ("mei", "mei", "anywhere:base")


def test_what_is_wrong_with_the_machine_keeps_nobody_out(client: Client, admin: User, woken: list[str]) -> None:
    make_template(make_host("lab01"), "base")
    make_pending("liwei", full_name="Li Wei")
    page = client.follow(_approve(client))
    assert page.texts("//*[@id='done']")[0].startswith("Approved Li Wei with 100 h")
    assert "Li Wei is approved, but has no machine yet: No host has room" in page.text
    assert "lab01 does not answer." in page.text
    assert page.link("Make their machine") == "/machines/new?owner=liwei"
    assert (accounts.get("liwei").state, woken) == (UserState.ACTIVE, [])


def test_an_approval_that_is_undone_leaves_the_machine_and_says_so(client: Client, admin: User) -> None:
    make_template(make_host("lab01", seen_at=clock.now()), "base")
    make_pending("liwei", full_name="Li Wei")
    page = client.follow(_approve(client))
    page = client.follow(client.submit(page.form("Undo")))
    assert "The machine liwei stays. Delete it if it is not wanted." in page.text


def _several(client: Client, *who: str) -> Page:
    boxes = client.get("/people").all("//input[@form='several'][@name='who']/@value")
    assert set(who) <= set(boxes), "a box for each who waits"
    return client.get("/people/approve/several", query_string={"who": who})


def test_several_are_approved_alike_and_what_is_wrong_with_one_keeps_no_other_out(
    client: Client, admin: User, woken: list[str]
) -> None:
    make_template(make_host("lab01", seen_at=clock.now()), "base")
    students = classes.create(admin, "Students")
    for name in ("liwei", "chenyu", "mei", "zhang"):
        make_pending(name, full_name=name.title(), reason="my thesis")
    page = _several(client, "liwei", "chenyu", "mei")
    assert page.h1 == "Approve 3 people"
    assert page.texts("//main//li")[0] == "Liwei (liwei) · liwei@example.org · my thesis"
    accounts.refuse("mei", "Not a member.", actor="another")
    form = page.form("Approve 3 people").fill(
        **{"Hours per month for each": "2,5", "Class of each": students.id, "A machine for each": "base"}
    )
    page = client.submit(form)
    assert (page.status, page.h1) == (200, "Approved 2 people")
    assert page.texts("//tbody/tr/th") == ["Liwei", "Chenyu", "Mei"]
    assert page.texts("//tbody/tr[2]/td")[:3] == ["Active", "2.5", "chenyu on lab01"]
    assert page.texts("//tbody/tr[3]/td") == ["Refused", "Mei is not waiting for approval any more."]
    assert woken == ["lab01"]
    account = accounts.account_of("liwei")
    assert (account.balance, account.class_id) == (9000, students.id)
    assert accounts.get("zhang").state == UserState.PENDING
    again = client.submit(form)
    assert (again.status, again.h1, woken) == (409, "Nobody was approved", ["lab01"])
    assert again.texts("//tbody/tr[1]/td") == ["Active", "Liwei is not waiting for approval any more."]
    assert (account.balance, [one.name for one in instances.everyones()]) == (9000, ["chenyu", "liwei"])
    assert client.submit(page.form("Undo for Chenyu")).status == 303
    assert accounts.get("chenyu").state == UserState.PENDING


def test_several_without_a_machine_or_with_wrong_hours_or_nobody(client: Client, admin: User) -> None:
    make_template(make_host("lab01"), "base")
    for name in ("liwei", "chenyu"):
        make_pending(name, full_name=name.title())
    form = _several(client, "liwei", "chenyu").form("Approve 2 people")
    for hours in ("many", "99999999"):
        wrong = client.submit(form.fill(**{"Hours per month for each": hours}))
        assert (wrong.status, wrong.all("//input[@aria-invalid='true']/@value")) == (422, [hours])
        assert wrong.form("Approve 2 people").values["who"] == ["liwei", "chenyu"]
    gone = client.post("/people/approve/several", {"who": ["liwei"], "hours": "10", "class": "999"})
    assert (gone.status, gone.texts("//tbody/tr[1]/td")[1]) == (409, "There is no class 999.")
    assert (accounts.get("liwei").state, accounts.get("liwei").account) == (UserState.PENDING, None), "nothing of it"
    page = client.submit(form.fill(**{"Hours per month for each": "10"}))
    assert "none now: No host has room" in page.texts("//tbody/tr[1]/td")[2], "in all the same"
    assert page.link("Make a machine for Liwei") == "/machines/new?owner=liwei"
    for query in ("", "?who=liwei&who=nobody"):
        nobody = client.get(f"/people/approve/several{query}")
        assert (nobody.status, nobody.h1) == (422, "People")
        assert "Nobody who waits is chosen." in nobody.text


@pytest.mark.parametrize("hours", ["", "many", "-5", "1e9", "99999999", "nan", "١٠٠"])
def test_hours_that_are_no_hours_approve_nobody(client: Client, admin: User, hours: str) -> None:
    make_pending("liwei", full_name="Li Wei")
    page = _approve(client, hours)
    assert page.status == 422
    assert page.all("//input[@aria-invalid='true']/@id") == ["hours-liwei"]
    assert accounts.get("liwei").state == UserState.PENDING


def test_refusing_needs_a_reason(client: Client, admin: User) -> None:
    make_pending("liwei", full_name="Li Wei")
    form = client.get(client.get("/people").link("Refuse Li Wei…")).form("Refuse Li Wei")
    page = client.submit(form.fill(Reason="  "))
    assert page.status == 422
    page = client.follow(client.submit(page.form("Refuse Li Wei").fill(Reason="Not a member.")))
    assert "Refused Li Wei" in page.text
    assert accounts.get("liwei").state == UserState.REFUSED
    page = client.get("/people/liwei")
    assert "Not a member." in page.text
    assert client.submit(page.form("Approve Li Wei")).status == 303, "still to be let in"


def test_two_admins_who_decide_at_once_decide_once(client: Client, admin: User) -> None:
    make_pending("liwei", full_name="Li Wei")
    form = client.get("/people").form("Approve Li Wei")
    assert client.submit(form).status == 303
    again = client.submit(form)
    assert again.status == 409
    assert again.h1 == "Li Wei is not waiting for approval any more."
    assert accounts.get("liwei").account.balance == 360_000


def test_an_older_list_lets_nobody_in_whom_another_admin_refused(client: Client, admin: User) -> None:
    make_pending("liwei", full_name="Li Wei")
    form = client.get("/people").form("Approve Li Wei")
    accounts.refuse("liwei", "Not a member.", actor="another")
    again = client.submit(form)
    assert (again.status, again.h1) == (409, "Li Wei is not waiting for approval any more.")
    assert accounts.get("liwei").state == UserState.REFUSED


def test_suspending_shuts_out_at_once_and_can_be_taken_back(client: Client, admin: User, app) -> None:
    user = make_user("liwei", full_name="Li Wei")
    theirs = Client(app).login_as(user)
    page = client.get(client.get("/people/liwei").link("Suspend Li Wei…"))
    assert "signed out everywhere at once" in page.text
    wrong = client.submit(page.form("Suspend Li Wei").fill(**{"Type the username to go on": "Li Wei"}))
    assert (wrong.status, user.state) == (422, UserState.ACTIVE)
    assert wrong.texts("//*[@id='typed-error']") == ["That is not the username. Type liwei."]
    page = client.follow(client.submit(wrong.form("Suspend Li Wei").fill(**{"Type the username to go on": "liwei"})))
    assert "Suspended" in page.text
    assert theirs.get("/quota").status == 302
    assert db.session.scalars(db.select(SignIn).where(SignIn.user_id == user.id)).all() == []
    assert theirs.post("/login", {"username": "liwei", "password": PASSWORD}).h1 == "Your account is suspended"
    client.submit(page.form("Let Li Wei in again"))
    theirs.login_as(user)


def test_an_admin_can_be_made_and_unmade_but_never_by_themselves(client: Client, admin: User) -> None:
    user = make_user("liwei", full_name="Li Wei")
    page = client.get(client.get("/people/liwei").link("Make Li Wei an admin…"))
    form = page.form("Make Li Wei an admin")
    assert (client.submit(form).status, user.role) == (422, Role.USER)
    page = client.follow(client.submit(form.fill(**{"Type the username to go on": "liwei"})))
    assert user.role == Role.ADMIN
    page = client.get(page.link("Remove Li Wei as admin…"))
    client.submit(page.form("Remove Li Wei as admin"))
    assert user.role == Role.USER
    mine = client.get("/people/ada")
    assert not [link for link in mine.links() if "admin…" in link or "Suspend" in link]
    for url in ("/people/ada/suspend", "/people/ada/role/user"):
        assert client.post(url, {"typed": "ada"}).status == 403
    assert admin.is_admin


def test_hours_given_once_and_monthly_show_in_the_ledger(client: Client, admin: User) -> None:
    user = make_user("liwei", full_name="Li Wei", hours=0)
    form = client.get("/people/liwei").form("Give hours").fill(**{"Hours to give once": "-2,5", "Why": "a test"})
    page = client.follow(client.submit(form))
    assert "Hours changed." in page.text
    assert "−2.5" in page.text
    form = page.form("Set monthly hours").fill(**{"Hours per month for Li Wei": "40"})
    page = client.follow(client.submit(form))
    assert user.account is not None
    db.session.refresh(user.account)
    assert user.account.balance == 37.5 * 3600
    page = client.submit(page.form("Set monthly hours").fill(**{"Hours per month for Li Wei": "10"}))
    db.session.refresh(user.account)
    assert user.account.balance == 7.5 * 3600, "the difference only"
    assert client.submit(client.get("/people/liwei").form("Give hours")).status == 422


def test_people_are_found_by_name_mail_and_state(client: Client, admin: User) -> None:
    user = make_user("liwei", full_name="Li Wei", email="wei@lab.example")
    make_instance(user, make_host(), "liwei-box")
    make_user("percent", full_name="100% Zhao")
    for number in range(52):
        make_user(f"many{number:02}", full_name="Many", state=UserState.DISABLED)

    def found(query: str) -> list[str]:
        return client.get(f"/people{query}").texts("//tbody//th")

    assert found("?q=WEI@lab") == ["Li Wei"]
    assert found("?q=%25") == ["100% Zhao"]
    assert len(found("?state=disabled")) == 50
    assert len(found("?state=disabled&page=2")) == 2
    assert found("?state=active&q=many") == []
    assert found("?page=-3&q=liwei") == ["Li Wei"]
    assert "liwei-box" in client.get("/people?q=liwei").text


def test_the_list_costs_the_same_for_few_and_for_many(client: Client, admin: User, count_queries) -> None:
    make_user()
    with count_queries() as few:
        client.get("/people")
    for _ in range(20):
        make_instance(make_user(), make_host(gpus=0))
    with count_queries() as many:
        client.get("/people")
    assert len(many) == len(few) <= 13  # one of them for the alarms in the navigation


def test_markup_in_a_request_stays_text(client: Client, admin: User) -> None:
    evil = "<img src=x onerror=alert(1)>"
    make_pending("mallory", full_name=evil, reason=f"{evil}\n{evil}")
    page = client.get("/people")
    assert evil in page.text
    assert not page.all("//img")
    assert f"Approve {evil}" in page.buttons()


def test_everything_is_audited(client: Client, admin: User) -> None:
    make_pending("liwei", full_name="Li Wei")
    _approve(client)
    client.post("/people/liwei/suspend", {"typed": "liwei"})
    query = db.select(AuditEvent.action).where(AuditEvent.target == "user:liwei", AuditEvent.actor == "ada")
    actions = db.session.scalars(query.order_by(AuditEvent.id)).all()
    assert actions == ["user.approved", "user.suspended"]
    page = client.get("/audit?target=user:liwei")
    assert page.texts("//tbody/tr/td[3]") == ["user.suspended", "user.approved"]


def test_somebody_who_is_not_there(client: Client, admin: User) -> None:
    for url in ("/people/nobody", "/people/nobody/refuse", "/people/nobody/suspend"):
        assert client.get(url).status == 404
    assert client.post("/people/nobody/approve", {"hours": "1"}).status == 404
