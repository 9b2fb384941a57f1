"""Public keys: which are taken, what is kept of them, and what is said of those that are not."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from app.errors import InvalidInput, NotFound
from app.services import access, ssh_keys
from tests.factories import make_host, make_instance, make_user

pytestmark = pytest.mark.usefixtures("app")


def public(key: object) -> str:
    form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(*form).decode()


GOOD = public(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))))  # the same in each worker: it names tests


@pytest.mark.parametrize("make", [
    ed25519.Ed25519PrivateKey.generate,
    lambda: ec.generate_private_key(ec.SECP256R1()),
    lambda: ec.generate_private_key(ec.SECP521R1()),
    lambda: rsa.generate_private_key(65537, 2048),
])  # fmt: skip
def test_keys_that_are_taken(make, tmp_path: Path) -> None:
    line = public(make())
    user = make_user()
    key = ssh_keys.add("test", user, f"  {line} li@desk \n")
    assert (key.text, key.name) == (line, "li@desk")
    (tmp_path / "key.pub").write_text(line)
    said = subprocess.run(["ssh-keygen", "-lf", tmp_path / "key.pub"], capture_output=True, text=True, check=True)
    assert said.stdout.split()[1] == key.fingerprint
    assert user.keys_changed_at is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Paste the content"),
        ("hello", "must begin with"),
        ("ssh-ed25519", "damaged"),
        ("ssh-ed25519 AAAA", "damaged"),
        ("ssh-ed25519 ////", "damaged"),
        (GOOD[:-6], "damaged"),
        (GOOD.replace("ssh-ed25519", "ssh-rsa"), "damaged"),
        (GOOD + "\n" + GOOD, "one line"),
        (GOOD + "\r" + 'command="id" ' + GOOD, "one line"),
        ('command="id" ' + GOOD, "Options"),
        ("from=*,no-pty " + GOOD, "Options"),
        ("cert-authority " + GOOD, "Options"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----", "private key"),
        (public(rsa.generate_private_key(65537, 1024)), "2048 bits"),
        ("ssh-dss " + GOOD.split()[1], "must begin with"),
        ("ssh-ed25519-cert-v01@openssh.com " + GOOD.split()[1], "must begin with"),
        ("ssh-rsa " + "A" * 9000, "Paste the content"),
    ],
)
def test_keys_that_are_not_taken(text: str, words: str) -> None:
    user = make_user()
    with pytest.raises(InvalidInput, match=words) as refused:
        ssh_keys.add("test", user, text)
    assert refused.value.field == "key"
    assert (ssh_keys.of_user(user.id), user.keys_changed_at) == ([], None)


def test_one_twice_is_one_and_there_is_a_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_keys, "MOST", 2)
    user = make_user()
    first = ssh_keys.add("test", user, GOOD, "first")
    assert ssh_keys.add("test", user, f"{GOOD} again") is first
    ssh_keys.add("test", user, public(ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(InvalidInput, match="the most"):
        ssh_keys.add("test", user, public(ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(NotFound):
        ssh_keys.remove("test", make_user(), first.id)
    before = user.keys_changed_at
    ssh_keys.remove("test", user, first.id)
    assert user.keys_changed_at > before
    assert len(ssh_keys.of_user(user.id)) == 1


def test_whose_agents_hear_of_it() -> None:
    user, near, far = make_user(), make_host("near"), make_host("far")
    make_instance(user, near, "one")
    make_instance(user, near, "two")
    make_instance(make_user(), far, "three")
    assert ssh_keys.hosts_of(user.id) == ["near"]


def test_what_a_machine_says_are_its_host_keys() -> None:
    good = "ssh-ed25519 " + base64.b64encode(b"x" * 51).decode()
    text = (
        f"{good} root@<b>\n{good}\n@cert-authority * {good}\nssh-ed25519 $(id){'A' * 70}\n\x1b[2J{good}\n" + "y\n" * 9
    )
    assert access.host_keys(text) == [good]
    assert access.host_keys("ssh-rsa " + "A" * 900) == []
    assert access.missing(["sshd", "rm -rf", "sudo"]) == ["sshd", "sudo"]
