"""The rules as an admin sets them on the page."""

from __future__ import annotations

import pytest

from app.services import policy
from tests.factories import make_admin
from tests.page import Client

GRACE, STOP = "Seconds between asking a program to end and ending it", "Stop a machine that does not let go of a GPU"


@pytest.fixture
def admin(client: Client) -> Client:
    return client.login_as(make_admin("boss"))


def test_taking_a_gpu_back_has_two_rules(admin: Client) -> None:
    page = admin.get("/rules")
    assert page.texts("//form//h2")[:4] == ["Bookings", "Machines", "Taking a GPU back", "What GPUs did"]
    assert page.form("Save rules").values["grace_seconds"] == "20"
    assert "Otherwise the GPU goes into quarantine" in page.text
    admin.follow(admin.submit(page.form("Save rules").fill(**{GRACE: 90, STOP: True})))
    assert (policy.current().grace_seconds, policy.current().force_stop) == (90, True)
    page = admin.get("/rules")
    admin.submit(page.form("Save rules").fill(**{GRACE: 0, STOP: False}))
    assert (policy.current().grace_seconds, policy.current().force_stop, policy.current().self_service) == (
        0,
        False,
        True,
    )


@pytest.mark.parametrize("seconds", ["601", "-1", "", "1e2", "20.5", "9" * 30])
def test_a_grace_that_cannot_be_keeps_what_was_typed(admin: Client, seconds: str) -> None:
    form = admin.get("/rules").form("Save rules").fill(**{GRACE: seconds, STOP: True})
    page = admin.submit(form)
    assert page.status == 422
    assert "This must be a whole number from 0 to 600." in page.texts("//*[@role='alert']")[-1]
    again = page.form("Save rules").values
    assert (again["grace_seconds"], "1" in again["force_stop"]) == (seconds, True)
    assert (policy.current().grace_seconds, policy.current().force_stop) == (20, False)


def test_how_long_minutes_are_kept_and_when_gpus_are_idle_go_together(admin: Client) -> None:
    kept, held = "What GPUs did is kept by the minute", "The same while memory is held (0: they never are)"
    page = admin.submit(admin.get("/rules").form("Save rules").fill(**{kept: 2, held: 2880}))
    assert page.status == 422
    said = page.texts("//*[@role='alert']")[-1]
    assert "At most 1440 minutes: what GPUs did is kept by the minute for 2 days." in said
    admin.follow(admin.submit(page.form("Save rules").fill(**{kept: 3})))
    page = admin.submit(admin.get("/rules").form("Save rules").fill(**{kept: 2}))
    said = page.texts("//*[@role='alert']")[-1]
    assert "At least 3 days: GPUs with memory held are idle after 2880 minutes." in said
    assert (policy.current().minute_days, policy.current().idle_held_minutes) == (3, 2880)
