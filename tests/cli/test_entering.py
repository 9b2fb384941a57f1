"""Ways into machines by command: how a host is reached, a password, a key."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from app.drivers.fake import FakeLxd
from tests.cli.conftest import Berth, actors
from tests.services.test_ssh_keys import GOOD


def made(lab: Berth) -> None:
    assert lab("instance", "create", "m1", "--host", "ws1", "--image", "base", "--owner", "liwei").status == 0


def test_how_a_host_is_reached(berth: Berth) -> None:
    ways = ["--address", "lab03.example.org", "--listen", "10.0.0.3", "--ports", "30000-30009"]
    added = berth("host", "add", "ws1", "--lxd", "sim:", *ways, "--json").json()
    assert (added["address"], added["listen"], added["ports"]) == ("lab03.example.org", "10.0.0.3", "30000-30009")
    said = berth("host", "set", "ws1", "--address", "")
    assert said.out == "ws1: machines are reached at ws1, ports 30000-30009 of 10.0.0.3.\n"
    assert berth("host", "list", "--json").json()[0]["listen"] == "10.0.0.3", "what is not named stays"


@pytest.mark.parametrize(
    "wrong",
    [
        ("--ports", "22"), ("--ports", "30009-30000"), ("--ports", "80-90"), ("--ports", "65000-70000"),
        ("--listen", "lab03"), ("--listen", ""), ("--address", "a b"), ("--address", "x\nProxyCommand id"),
    ],
)  # fmt: skip
def test_what_is_no_way(lab: Berth, wrong: tuple[str, str]) -> None:
    before = lab("host", "list", "--json").json()
    refused = lab("host", "set", "ws1", *wrong)
    assert (refused.status, refused.out) == (1, "")
    assert lab("host", "list", "--json").json() == before


def test_a_password_is_printed_alone(lab: Berth, engine: sa.Engine) -> None:
    made(lab)
    said = lab("instance", "password", "m1")
    assert said.status == 0, said.err
    assert len(said.out.strip()) >= 18
    assert len(said.out.splitlines()) == 1
    with engine.connect() as connection:
        texts = connection.execute(
            sa.text("SELECT details::text FROM operations UNION SELECT details::text FROM audit_events")
        )
        kept = " ".join(text for (text,) in texts)
    assert said.out.strip() not in kept
    assert "$6$" not in kept
    lab("instance", "stop", "m1")
    refused = lab("instance", "password", "m1")
    assert (refused.status, refused.out) == (1, "")
    assert "does not run" in refused.err
    assert actors(engine) == {"cli"}


def test_a_key_is_in_the_machine_when_the_command_returns(lab: Berth, environment: Path) -> None:
    made(lab)
    file = environment / "key.pub"
    file.write_text(f"{GOOD} li@desk\n")
    said = lab("instance", "key", "m1", str(file))
    assert said.status == 0, said.err
    assert said.out.startswith("SHA256:")
    assert FakeLxd(environment / "sim" / "ws1.json").given("m1") == GOOD
    file.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    refused = lab("instance", "key", "m1", str(file))
    assert (refused.status, refused.out) == (1, "")
    assert "private key" in refused.err
    assert lab("instance", "key", "m1", str(environment / "nothing")).status == 2
