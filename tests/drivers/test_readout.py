"""Logs of an instance as text that can be shown: what its root writes into them steers nothing."""

from __future__ import annotations

import pytest

from app.drivers.base import GiveUp
from app.drivers.readout import LINE, LONGEST, plain
from tests.drivers.conftest import Subject


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"one\ntwo\n", "one\ntwo"),
        (b"\x1b[0;32m  OK  \x1b[0m done\r\n", "  OK   done"),
        (b"\x1b]0;a title\x07shown", "shown"),
        (b"\x1b]0;a title\x1b\\shown", "shown"),
        (b"50 %\r100 %", "50 %\n100 %"),
        (b"a\x00b\x08c\x7f\xc2\x9b31m", "abc31m"),
        ("\u202egnp.exe\u2066 \u200b!".encode(), "gnp.exe !"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("中文".encode(), "中文"),
        (b"", ""),
    ],
)
def test_nothing_steers_a_terminal_or_a_page(data: bytes, expected: str) -> None:
    assert plain(data) == expected


def test_long_ones_lose_their_beginning_and_lines_their_end() -> None:
    text = plain(b"first\n" + b"x" * 100_000 + b"\nlast\n")
    assert text.endswith("x\nlast")
    assert "first" not in text
    assert len(text) < LINE + 10
    assert len(plain(b"y\n" * LONGEST)) < LONGEST


def test_a_host_reads_its_instances_logs(subject: Subject) -> None:
    name = subject.machine()
    assert name in subject.driver.read_log(name)
    assert "\x1b" not in subject.driver.read_console(name)
    assert subject.driver.read_log(subject.put("stopped")) == ""  # it never ran
    for read in (subject.driver.read_log, subject.driver.read_console):
        with pytest.raises(GiveUp, match="no such instance"):
            read("no-such")
