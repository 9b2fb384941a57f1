from tests.factories import make_pending, make_user
from tests.page import Client


def test_signing_in_leads_on_and_out_again(client: Client) -> None:
    user = make_user("liwei")
    assert client.login_as(user).get("/register").status == 200
    page = client.get("/login")
    assert page.status == 303
    assert client.post("/logout").status == 303
    assert client.get("/login").status == 200


def test_who_waits_reads_a_sentence(client: Client) -> None:
    user = make_pending("chenyu")
    page = client.post("/login", {"username": user.username, "password": "a berth for everyone"})
    assert page.status == 200
    assert "An admin must approve you" in page.text
