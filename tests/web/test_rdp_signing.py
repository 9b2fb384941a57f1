"""Signed .rdp files: openssl agrees, a changed one is found out, and without a usable certificate none is signed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from app.config import Settings
from app.models import User
from app.services import ports
from tests.certificates import certificate, verified
from tests.conftest import settings_for
from tests.factories import make_host, make_instance, make_user
from tests.page import Client
from tests.web.caller import caller


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return certificate(tmp_path / "tls", "Vision Lab")


@pytest.fixture
def settings(shared_db: str, tmp_path: Path, pair: tuple[Path, Path]) -> Settings:
    return settings_for(shared_db, tmp_path, BERTH_RDP_CERT=str(pair[0]), BERTH_RDP_KEY=str(pair[1]))


@pytest.fixture(autouse=True)
def liwei(client: Client) -> User:
    """Somebody with a machine that has a desktop."""
    user, host = make_user("liwei"), make_host("lab03", address="lab03.example.org")
    ports.reserve(make_instance(user, host, "gamma", health={"account": "ok", "rdp": ""}), host)
    client.login_as(user)
    return user


def test_openssl_finds_the_signature_right_and_a_change_wrong(
    client: Client, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    text = client.get("/machines/gamma/rdp").body
    scope = verified(text, pair[0], tmp_path)
    assert scope[:2] == ["Full Address", "Alternate Full Address"]
    assert {"RedirectDrives", "Prompt For Credentials", "Authentication Level"} <= set(scope)
    assert "username:s:liwei\r\n" in text
    assert "\n" not in text.replace("\r\n", "")
    for changed in (
        text.replace("redirectdrives:i:0", "redirectdrives:i:1"),
        re.sub(r"(?m)^(full address:s:)[^:]+", r"\1evil.example.org", text),
        text.replace("RedirectClipboard,", ""),
    ):
        assert changed != text
        with pytest.raises(subprocess.CalledProcessError):
            verified(changed, pair[0], tmp_path)
    with pytest.raises(subprocess.CalledProcessError):
        verified(text, certificate(tmp_path / "other")[0], tmp_path)


def test_the_page_names_who_signs_and_the_api_signs_too(
    client: Client, liwei: User, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    assert "It is signed by Vision Lab" in client.get("/machines/gamma").text
    headers = {"Authorization": f"Bearer {caller(client, liwei).token}"}
    verified(client.get("/api/v1/instances/gamma/rdp", headers=headers).body, pair[0], tmp_path)


def test_what_cannot_sign_leaves_the_file_as_it_is(client: Client, pair: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = pair
    good = {path: path.read_bytes() for path in pair}
    other = [path.read_bytes() for path in certificate(tmp_path / "other")]
    expired = certificate(tmp_path / "old", days=1)
    spoilt = [
        {cert: b""},
        {cert: good[key]},
        {key: b"-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n"},
        {key: other[1]},
        {cert: expired[0].read_bytes(), key: expired[1].read_bytes()},
    ]
    for change in spoilt:
        for path, content in (good | change).items():
            path.write_bytes(content)
        file = client.get("/machines/gamma/rdp")
        assert (file.status, "signature:s:" in file.body) == (200, False)
        assert "It is signed by" not in client.get("/machines/gamma").text
    cert.unlink()
    assert "signature:s:" not in client.get("/machines/gamma/rdp").body
