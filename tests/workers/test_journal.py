"""What waits to be delivered survives whatever kills its writer, and is bounded."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.services.samples import Part
from workers import journal as module
from workers.journal import Journal

MINUTE = datetime(2026, 11, 2, 10, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys
from datetime import datetime, UTC
from pathlib import Path
from app.services.samples import Part
from workers.journal import Journal
journal, number = Journal(Path(sys.argv[1])), int(sys.argv[2])
while True:
    number += 1
    journal.write([Part("a", datetime.fromtimestamp(60 * number, UTC), 7, "alice", n, n) for n in range(100)])
    print(number, flush=True)
"""


def part(number: int = 0) -> Part:
    return Part("0000:01:00.0", MINUTE + timedelta(minutes=number), 7, "alice", 10_000, 4_000, 900, 800, 61)


def everything(journal: Journal) -> list[Part]:
    return [part for path in journal.seal() for part in journal.read(path)]


def test_what_is_written_is_read_and_nothing_is_added_to_what_is_being_delivered(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write([part(0), part(1)])
    journal.write([part(2)])
    (first,) = journal.seal()
    journal.write([part(3)])
    assert journal.read(first) == [part(0), part(1), part(2)]
    one, two = journal.seal()
    assert (one, journal.read(two)) == (first, [part(3)])
    journal.done(one)
    assert journal.seal() == [two]
    journal.set_aside(two)
    assert Journal(tmp_path).seal() == []


def test_a_batch_is_not_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PARTS", 10)
    journal = Journal(tmp_path)
    for number in range(7):
        journal.write([part(number)] * 3)
    assert [len(journal.read(path)) for path in journal.seal()] == [9, 9, 3]


def test_a_torn_line_is_all_that_is_lost(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write([part(0)])
    journal.write([part(1)])
    (path,) = journal.seal()
    whole = path.read_bytes()
    for length in range(whole.index(b"\n") + 1, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert journal.read(path) == [part(0)]
    path.write_bytes(whole[:-1])
    assert journal.read(path) == [part(0), part(1)], "its end is all that is missing of the last"
    path.write_bytes(whole.replace(b"alice", b"alicf", 1))
    assert journal.read(path) == [part(1)]


def test_a_writer_that_is_killed_loses_nothing_that_it_wrote(tmp_path: Path) -> None:
    said: list[int] = []
    for _ in range(4):  # killed in the middle of writing, and started anew
        start = str(max(said, default=0) + 1000)
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), start], stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        assert child.stdout is not None
        said += [int(child.stdout.readline()) for _ in range(30)]
        child.send_signal(signal.SIGKILL)
        child.wait()
        said += [int(line) for line in child.stdout.read().splitlines() if line.strip()]
    minutes = [int(one.minute.timestamp()) // 60 for one in everything(Journal(tmp_path))]
    for number in said:
        assert minutes.count(number) == 100
    assert len(minutes) - 100 * len(said) in {0, 100, 200, 300, 400}, "one may be written and not said, of each"


def test_a_disk_that_is_full_is_said_and_nothing_is_kept_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, append = Journal(tmp_path), module._append
    journal.write([part(0)])

    def half(file: module.FileIO, line: bytes) -> None:
        file.write(line[: len(line) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_append", half)
    for _attempt in range(5):
        with pytest.raises(OSError, match="No space left"):
            journal.write([part(1)])
    (kept,) = tmp_path.iterdir()
    assert journal.read(kept) == [part(0)]
    assert kept.read_bytes().endswith(b"\n"), "nothing is left of what could not be written"
    monkeypatch.setattr(module, "_append", append)
    journal.write([part(1)])
    assert everything(journal) == [part(0), part(1)]


def test_where_what_is_torn_stays_nothing_comes_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, fails = Journal(tmp_path), OSError(errno.EIO, os.strerror(errno.EIO))
    journal.write([part(0)])

    def half(file: module.FileIO, line: bytes) -> None:
        file.write(line[: len(line) // 2])
        monkeypatch.setattr(journal, "_file", Stubborn(file))
        raise fails

    class Stubborn:
        def __init__(self, file: module.FileIO) -> None:
            self.name, self.close = file.name, file.close

        def truncate(self, _length: int) -> None:
            raise fails

    with monkeypatch.context() as patch:
        patch.setattr(module, "_append", half)
        with pytest.raises(OSError, match="Input/output"):
            journal.write([part(1)])
    journal.write([part(1)])
    assert everything(journal) == [part(0), part(1)]


def test_a_file_of_which_the_disk_says_nothing_keeps_no_other_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, stat = Journal(tmp_path), Path.stat
    journal.write([part(0)])
    (broken,) = journal.seal()

    def fails(path: Path, **more: bool) -> os.stat_result:
        if path == broken:
            raise OSError(errno.EUCLEAN, os.strerror(errno.EUCLEAN))
        return stat(path, **more)

    monkeypatch.setattr(Path, "stat", fails)
    journal.write([part(1)])
    assert journal.read(journal.seal()[1]) == [part(1)]


def test_the_oldest_goes_when_it_is_too_much_or_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PARTS", 1)
    journal = Journal(tmp_path, most_bytes=1000)
    for number in range(100):
        journal.write([part(number)])
    kept = everything(journal)
    assert 5 < len(kept) < 20
    assert kept == [part(number) for number in range(100 - len(kept), 100)]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1200
    for path in journal.seal():
        os.utime(path, (0, time.time() - module.LONGEST - 1))
    assert journal.seal() == [], "nor is it sent, when an agent comes back"
    journal.write([part(1000)])
    assert everything(journal) == [part(1000)]
