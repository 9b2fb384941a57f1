"""/healthz and /metrics, for monitors: open to everybody, so nothing in them names a person or opens anything."""

from __future__ import annotations

from datetime import datetime

from flask import Blueprint, Response, jsonify
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from app import clock, queue
from app.extensions import db
from app.models import Booking, Gpu, Host
from app.services import inventory
from app.web.security import public

bp = Blueprint("health", __name__)

LATE = 60  # seconds without a sign of life after which a host's agent counts as away


@bp.get("/healthz")
@public
def healthz() -> tuple[Response, int]:
    """Whether the portal can work: 200, or 503 without its database. An agent or Valkey away is told, not fatal."""
    valkey = "ok" if queue.reachable() else "away"
    now = clock.now()
    try:
        hosts = [_host(host, now) for host in inventory.hosts()]
    except SQLAlchemyError:
        db.session.rollback()
        return jsonify(status="away", database="away", valkey=valkey, hosts=[]), 503
    return jsonify(status="ok", database="ok", valkey=valkey, hosts=hosts), 200


def _host(host: Host, now: datetime) -> dict[str, str | int | None]:
    age = None if host.seen_at is None else round((now - host.seen_at).total_seconds())
    agent = "ok" if age is not None and age <= LATE else "away"
    return {"name": host.name, "agent": agent, "seen_seconds_ago": age}


@bp.get("/metrics")
@public
def metrics() -> tuple[Response, int]:
    """Prometheus' text format."""
    lines = _gauge("berth_queue_up", "Whether Valkey can be reached", [({}, int(queue.reachable()))])
    try:
        lines += _database_lines(clock.now())
    except SQLAlchemyError:
        db.session.rollback()
        lines += _gauge("berth_database_up", "Whether the database can be reached", [({}, 0)])
    body = "\n".join(lines) + "\n"
    return Response(body, content_type="text/plain; version=0.0.4; charset=utf-8"), 200


Samples = list[tuple[dict[str, str], int | float]]


def _database_lines(now: datetime) -> list[str]:
    hosts = inventory.hosts()
    # By what is not settled yet: those have an index of their own, however many bookings are past.
    running = select(func.count()).where(
        Booking.settled_at.is_(None), Booking.cancelled_at.is_(None), Booking.starts_at <= now, Booking.ends_at > now
    )
    by_state = select(Host.name, Gpu.state, func.count()).join(Host, Host.id == Gpu.host_id)
    gpus: Samples = [
        ({"host": name, "state": state}, count)
        for name, state, count in db.session.execute(by_state.group_by(Host.name, Gpu.state).order_by(Host.name))
    ]
    return [
        *_gauge("berth_database_up", "Whether the database can be reached", [({}, 1)]),
        *_gauge("berth_bookings_running", "Bookings that run now", [({}, db.session.scalar(running) or 0)]),
        *_gauge("berth_gpus", "GPUs by host and state", gpus),
        *_gauge(
            "berth_agent_seen_seconds", "Since the last sign of life of a host's agent", _ages(hosts, now, "seen_at")
        ),
        *_gauge(
            "berth_pass_age_seconds", "Since the last pass that could look at the host", _ages(hosts, now, "pass_at")
        ),
        *_gauge(
            "berth_pass_duration_seconds",
            "How long that pass took",
            [({"host": host.name}, host.pass_ms / 1000) for host in hosts if host.pass_ms is not None],
        ),
    ]


def _ages(hosts: list[Host], now: datetime, moment: str) -> Samples:
    known = [(host.name, getattr(host, moment)) for host in hosts]
    return [({"host": name}, round((now - since).total_seconds(), 3)) for name, since in known if since is not None]


def _gauge(name: str, meaning: str, samples: Samples) -> list[str]:
    """One metric; host names and states hold no character that would need to be escaped."""
    lines = [f"# HELP {name} {meaning}", f"# TYPE {name} gauge"]
    for labels, value in samples:
        inner = ",".join(f'{key}="{text}"' for key, text in labels.items())
        lines.append(f"{name}{{{inner}}} {value}" if inner else f"{name} {value}")
    return lines
