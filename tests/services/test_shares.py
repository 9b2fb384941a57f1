"""Who gets to see which directory of a host, and what may be shared at all."""

from __future__ import annotations

import pytest
from flask import Flask

from app.drivers.shares import BAD, WARN, Found, Share, Wish, finds_none_fit, proper, share_device
from app.errors import InvalidInput, RuleRefused
from app.extensions import db
from app.models import AuditEvent, Host, SharedDirectory
from app.services import shares
from app.services.shares import Terms
from app.services.unix_ids import COMMON_GID, uid_of
from tests.factories import make_host, make_instance, make_user

COMMON = Terms("common", "/srv/common", "/srv/common", read_only=False)
HOMES = Terms("homes", "/data/homes", "/srv/home", read_only=False, own=True)


@pytest.fixture
def host(app: Flask) -> Host:
    return make_host("ws1")


def on(host: Host, terms: Terms, *found: Found) -> SharedDirectory:
    """A directory that was looked at and is switched on."""
    share = shares.add("boss", host, terms)
    shares.record(share.id, found, "agent:ws1")
    shares.switch("boss", host, share, on=True)
    return share


def test_each_machine_should_have_what_is_for_its_owner(host: Host) -> None:
    li, wang = make_user("li"), make_user("wang")
    make_instance(li, host, "m-li")
    make_instance(wang, host, "m-wang")
    make_instance(wang, make_host("ws2"), "elsewhere")
    common, homes = on(host, COMMON), on(host, HOMES)
    sets = on(host, Terms("sets", "/srv/sets", "/srv/sets", people=(wang,)))
    both = {share_device(common.id): Share("/srv/common", "/srv/common", read_only=False)}
    own = share_device(homes.id)
    assert shares.desired(host) == {
        "m-li": both | {own: Share("/data/homes/li", "/srv/home", read_only=False)},
        "m-wang": both
        | {
            own: Share("/data/homes/wang", "/srv/home", read_only=False),
            share_device(sets.id): Share("/srv/sets", "/srv/sets", read_only=True),
        },
    }
    shares.change("boss", host, common, Terms("common", "/srv/common", "/srv/common", read_only=False, people=(li,)))
    assert share_device(common.id) not in shares.desired(host)["m-wang"]
    shares.retire("boss", host, homes)
    assert list(shares.desired(host)["m-li"]) == [share_device(common.id)]


def test_the_host_is_asked_for_those_who_have_a_machine_there(host: Host) -> None:
    li, _nobody = make_user("li"), make_user("wang")
    make_instance(li, host, "m1")
    make_instance(li, host, "m2")
    share = shares.add("boss", host, HOMES)
    assert shares.wishes(host) == {
        share.id: Wish("/data/homes", False, True, COMMON_GID, (("li", uid_of(li)),), prepare=False)
    }
    assert uid_of(li) == 20000 + li.id


@pytest.mark.parametrize("found", [(Found(BAD, "flags", "/"),), (Found(WARN, "old"), Found(BAD, "idmap"))])
def test_nothing_is_switched_on_that_is_not_fit(host: Host, found: tuple[Found, ...]) -> None:
    make_instance(make_user("li"), host, "m1")
    share = shares.add("boss", host, COMMON)
    with pytest.raises(RuleRefused):
        shares.switch("boss", host, share, on=True)
    shares.record(share.id, found, "agent:ws1")
    with pytest.raises(RuleRefused):
        shares.switch("boss", host, share, on=True)
    shares.record(share.id, (Found(WARN, "old"),), "agent:ws1")
    shares.switch("boss", host, share, on=True)
    assert shares.desired(host)["m1"]
    shares.record(share.id, found, "agent:ws1")
    assert shares.desired(host) == {"m1": {}}
    assert db.session.scalars(db.select(AuditEvent).where(AuditEvent.action == "share.seen")).one().actor == "agent:ws1"


def test_another_place_has_to_be_looked_at_anew(host: Host) -> None:
    share = on(host, COMMON)
    shares.change("boss", host, share, Terms("common", "/srv/common", "/mnt/common", read_only=False))
    assert (share.active, share.fit) == (True, True)
    shares.change("boss", host, share, Terms("common", "/srv/other", "/mnt/common", read_only=False))
    assert (share.active, share.fit) == (False, False)


def test_whose_own_directory_could_not_be_made_does_not_get_it(host: Host) -> None:
    for name in ("li", "wang"):
        make_instance(make_user(name), host, f"m-{name}")
    on(host, HOMES, Found(WARN, "person", "li: belongs to 1000, not to 20001"))
    assert {name: len(items) for name, items in shares.desired(host).items()} == {"m-li": 0, "m-wang": 1}


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        (Terms("common", "/srv/else", "/srv/else"), "name"),
        (Terms("New Name", "/srv/else", "/srv/else"), "name"),
        (Terms("new", "/srv/else", "/srv/else"), "name"),
        (Terms("else", "/srv/common", "/srv/else"), "source"),
        (Terms("else", "/srv/common/below", "/srv/else"), "source"),
        (Terms("else", "/srv", "/srv/else"), "source"),
        (Terms("else", "/srv/else", "/srv/common/x"), "path"),
        (Terms("else", "/srv/else", "/home"), "path"),
        (Terms("else", "/srv/else", "/srv/else", read_only=True, own=True), "own"),
        (Terms("else", "/srv/else", "/srv/else", people=()), "people"),
    ],
)
def test_what_an_admin_may_not_say(host: Host, terms: Terms, field: str) -> None:
    shares.add("boss", host, COMMON)
    with pytest.raises(InvalidInput) as refusal:
        shares.add("boss", host, terms)
    assert refusal.value.field == field


def test_other_hosts_and_retired_ones_are_in_nobodys_way(host: Host) -> None:
    share = shares.add("boss", host, COMMON)
    shares.add("boss", make_host("ws2"), COMMON)
    shares.retire("boss", host, share)
    shares.add("boss", host, COMMON)


@pytest.mark.parametrize(
    "path",
    ["/", "", "srv/data", "/etc", "/etc/x", "/srv/../etc", "/srv//x", "/srv/", "/proc/1", "/var/lib/lxd", "/home",
     "/srv/a b", "/srv/x\n", "/root", "/.hidden", "/srv/./x", "/usr/local", "/var/snap/lxd"],
)  # fmt: skip
def test_what_no_path_may_be(path: str) -> None:
    assert not proper(path)


@pytest.mark.parametrize("path", ["/srv/data", "/data", "/home/shared", "/mnt/nas-1/sets", "/var/tmp/x", "/etcetera"])
def test_what_a_path_may_be(path: str) -> None:
    assert proper(path)


@pytest.mark.parametrize(
    ("lxd", "kernel", "expected"),
    [("5.0.2", "6.9.1-generic", True), ("5.0.4", "6.9", False), ("5.21.1", "6.18.2", True), ("5.21.2", "7.0", False),
     ("6.1", "6.18", False), ("5.0.2", "6.8.0", False), ("simulated", "6.18", False)],
)  # fmt: skip
def test_which_lxd_finds_nothing_fit(lxd: str, kernel: str, expected: bool) -> None:
    assert finds_none_fit(lxd, kernel) is expected
