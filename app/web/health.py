"""/healthz and /metrics, for monitors: open to everybody, so nothing in them names a person or opens anything.

Only who sends the token that an admin set reads in /metrics who has which GPU.
"""

from __future__ import annotations

from datetime import datetime

from flask import Blueprint, Response, jsonify, request
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from sqlalchemy.exc import SQLAlchemyError

from app import clock, queue
from app.extensions import db, settings
from app.models import Host
from app.services import inventory
from app.services import metrics as gauges
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
def metrics() -> Response:
    """Prometheus' text format. With the token of the settings also who has what; 401 for a wrong one."""
    names = gauges.names_for(settings().metrics_token, request.headers.get("Authorization", ""))
    if names is None:
        denied = {"WWW-Authenticate": "Bearer"}
        return Response("This is not the token in BERTH_METRICS_TOKEN.\n", 401, denied, content_type="text/plain")
    valkey = queue.reachable()
    try:
        found, up = list(gauges.families(names=names)), True
        found += [_queues([host.name for host in inventory.hosts()])] if valkey else []
    except SQLAlchemyError:
        db.session.rollback()
        found, up = [], False
    found += [
        GaugeMetricFamily("berth_database_up", "Whether the database can be reached", int(up)),
        GaugeMetricFamily("berth_queue_up", "Whether Valkey can be reached", int(valkey)),
    ]
    return Response(gauges.text(found), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _queues(hosts: list[str]) -> GaugeMetricFamily:
    family = GaugeMetricFamily("berth_queue_length", "Wakes that wait for a host's agent", labels=["host"])
    for name in hosts:
        if (length := queue.length(name)) is not None:
            family.add_metric([name], length)
    return family
