"""The report."""

from __future__ import annotations

import csv
import io
from datetime import timedelta

import pytest
import sqlalchemy as sa

from tests.cli.conftest import Berth, book_now


def test_the_report_adds_up_by_person(lab: Berth, engine: sa.Engine) -> None:
    book_now(engine)
    [row] = lab("report", "--json").json()
    assert (row["user"], row["bookings"]) == ("liwei", 1)
    assert (row["reserved_hours"], row["attached_hours"]) == pytest.approx((4, 1), abs=0.1)  # and it goes on
    [line] = csv.DictReader(io.StringIO(lab("report", "--format", "csv").out))
    assert (line["user"], float(line["reserved_hours"])) == ("liwei", pytest.approx(4, abs=0.1))
    assert "RESERVED HOURS" in lab("report").out
    assert lab("report", "--from", "2026-01-01", "--to", "2026-01-02", "--json").json() == []
    for wrong in (("--from", "yesterday"), ("--from", "2026-01-02", "--to", "2026-01-01"), ("--format", "xls")):
        assert lab("report", *wrong).status == 2
    for option in ("--from", "--to"):
        far = lab("report", option, "0001-01-05")
        assert (far.status, far.out) == (2, "")
        assert f"{option}: '0001-01-05' is too far off: the year is from 1971 to 8999." in far.err


def test_what_has_not_begun_is_not_counted(lab: Berth, engine: sa.Engine) -> None:
    book_now(engine)
    book_now(engine, timedelta(hours=24))
    [row] = lab("report", "--from", "2026-01-01", "--to", "2030-01-01", "--json").json()
    assert (row["bookings"], row["reserved_hours"]) == (1, pytest.approx(4, abs=0.1))


def test_what_is_still_to_come_and_what_nobody_booked_are_said(lab: Berth, engine: sa.Engine) -> None:
    for table in ("usage", "waits", "no-shows", "evictions"):
        to_come = lab("report", "--show", table, "--from", "2100-01-01", "--to", "2100-02-01").out
        assert to_come == "That time is still to come.\n"
    part = lab("report", "--from", "2026-01-01", "--to", "2030-01-01").out
    assert part == "Nobody booked anything in that time. What is still to come of it does not count.\n"
    with engine.begin() as connection:
        connection.execute(
            sa.text("""
            WITH c AS (INSERT INTO consumers (host_id, instance) SELECT id, 'by-hand' FROM hosts RETURNING id)
            INSERT INTO usage_days (day, gpu_id, consumer_id, sampled_ms, busy_ms, energy_j, memory_mib, temperature)
            SELECT DATE '2026-01-05', min(gpus.id), c.id, 7200000, 5400000, 0, 0, 0 FROM gpus, c GROUP BY c.id""")
        )
    said, days = "1.50 GPU-hours were busy without a booking.", ("--from", "2026-01-01", "--to", "2026-02-01")
    assert lab("report", *days).out.splitlines() == ["Nobody booked anything in that time.", said]
    assert lab("report", "--json", *days).json() == []
    assert said not in lab("report", "--format", "csv", *days).out + lab("report", "--waits", *days).out
    book_now(engine)
    assert lab("report", "--from", "2026-01-01").out.splitlines()[-1] == said


def test_who_waited_is_printed_by_what_a_wish_names(lab: Berth, engine: sa.Engine) -> None:
    book_now(engine)
    with engine.begin() as connection:
        connection.execute(
            sa.text("""
            INSERT INTO waits (user_id, seconds, starts_at, ends_at, by_itself, created_at)
            SELECT id, 3600, now(), now() + interval '9 hours', true, now() - interval '90 minutes' FROM users
            WHERE username = 'liwei'""")
        )
    [row] = lab("report", "--waits", "--json").json()
    assert (row["user"], row["places"], row["waiting"]) == ("liwei", 1, 1)
    assert row["longest_wait_hours"] == pytest.approx(1.5, abs=0.1)  # and it goes on
    [line] = csv.DictReader(io.StringIO(lab("report", "--waits", "--group", "model", "--format", "csv").out))
    assert (line["model"], float(line["median_wait_hours"])) == ("'-", pytest.approx(1.5, abs=0.1))
    assert lab("report", "--waits", "--group", "day").status == 2
    assert "Nobody waited" in lab("report", "--waits", "--from", "2026-01-01", "--to", "2026-01-02").out


def test_other_tables_are_printed_by_name(lab: Berth, engine: sa.Engine) -> None:
    book_now(engine)
    with engine.begin() as connection:
        connection.execute(
            sa.text("""
            INSERT INTO audit_events (actor, action, target, details, created_at)
            SELECT 'x', action, what || bookings.id, jsonb_build_object('booking', bookings.id, 'host', 'ws1'),
            now() - interval '1 minute' FROM bookings,
            (VALUES ('gpu.process_ended', 'gpu:'), ('booking.no_show', 'booking:')) AS t (action, what)""")
        )
    [row] = lab("report", "--show", "evictions", "--json").json()
    assert (row["step"], row["user"], row["host"]) == ("gpu.process_ended", "liwei", "ws1")
    [line] = csv.DictReader(io.StringIO(lab("report", "--show", "no-shows", "--format", "csv").out))
    assert (line["user"], line["gpus"], line["why"]) == ("liwei", "2", "no-machine")
    assert len(lab("report", "--show", "heat", "--format", "json").json()) == 168
    assert [line.split()[0] for line in lab("report", "--show", "heat").out.splitlines()[:2]] == ["HOUR", "00:00"]
    assert lab("report", "--show", "waits", "--json").json() == lab("report", "--waits", "--json").json() == []
    assert "Everybody came" in lab("report", "--show", "no-shows", "--to", "2026-01-02").out
    for wrong in (("--show", "heat", "--group", "team"), ("--show", "usage", "--waits"), ("--show", "all")):
        assert lab("report", *wrong).status == 2


def test_hours_are_printed_beside_those_of_the_time_before(lab: Berth, engine: sa.Engine) -> None:
    book_now(engine)
    [first] = lab("report", "--json").json()
    rows = lab("report", "--show", "compared", "--json").json()
    assert [row["what"] for row in rows] == ["booked", "attached", "busy", "wasted"]
    assert rows[0]["hours"] == pytest.approx(first["reserved_hours"], abs=0.1)
    assert (rows[0]["before_hours"], rows[0]["changed_percent"]) == (0, None)
    assert rows[0]["before_to"] == rows[0]["from"]
    later = ("--from", "2026-03-01", "--to", "2026-03-11")
    [line, *_] = csv.DictReader(io.StringIO(lab("report", "--show", "compared", "--format", "csv", *later).out))
    assert (line["before_from"][:10], line["hours"], line["changed_percent"]) == ("2026-02-18", "0.0", "")
    assert "BEFORE HOURS" in lab("report", "--show", "compared").out
    assert lab("report", "--show", "compared", "--group", "team").status == 2


def test_names_steer_neither_the_terminal_nor_a_spreadsheet(lab: Berth, engine: sa.Engine) -> None:
    book_now(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE users SET full_name = :name"), {"name": "=1+1\x9b31m\u202e"})
    assert "\x9b" not in lab("report").out
    assert "\u202e" not in lab("user", "list").out
    [line] = csv.DictReader(io.StringIO(lab("report", "--format", "csv").out))
    assert line["name"].startswith("'=1+1")
