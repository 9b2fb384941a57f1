"""The portal's pages and its API: parse, ask a service, commit, wake, render."""

from __future__ import annotations

from flask import Flask

from app.extensions import csrf
from app.web import (
    all_machines,
    api,
    audit,
    auth,
    backups,
    bookings,
    calendar,
    classes,
    compression,
    errors,
    feeds,
    find,
    health,
    help_page,
    home,
    host_desktop,
    hosts,
    idle,
    kept,
    live,
    locale,
    machine_care,
    machine_move,
    machines,
    maintenance,
    messages,
    navigation,
    notices,
    people,
    people_access,
    people_several,
    policy,
    quota,
    render,
    reports,
    security,
    settings,
    shares,
    snapshots,
    ssh_keys,
    static,
    teams,
    templates,
    terminal,
    uses,
    waits,
    ways,
)

__all__ = ["classes", "init_app", "locale", "machine_move", "people_access", "people_several"]

PAGES = (
    auth, home, calendar, find, bookings, waits, live, machines, machine_care, snapshots, backups, ways, terminal,
    quota, teams, reports, settings, ssh_keys, notices, feeds, messages, maintenance,
    people, hosts, host_desktop, shares, templates, all_machines, policy, idle, audit, health, help_page, api,
)  # fmt: skip


def init_app(app: Flask) -> None:
    """Give the application its guard, its pages and its error pages."""
    static.init_app(app)
    render.init_app(app)
    uses.init_app(app)
    navigation.init_app(app)
    errors.init_app(app)
    security.init_app(app)
    compression.init_app(app)
    kept.init_app(app)  # after it: what comes first here has the last word
    waits.init_app(app)
    for module in PAGES:
        app.register_blueprint(module.bp)
    app.register_blueprint(calendar.short)
    app.register_blueprint(waits.everybodys)
    csrf.exempt(api.bp)  # bearer tokens only: cookies mean nothing there, so nothing can be forged with them
