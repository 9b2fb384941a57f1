"""Waiting for work that was asked for, and doing it here where no agent is alive."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from datetime import timedelta

import click

from app import clock, queue
from app.cli import running
from app.cli.base import Failed
from app.extensions import settings, transaction
from app.models import Host, Operation, OperationState
from app.services import inventory, operations

ASK_EVERY = 0.2  # seconds


def carry_out(operation: Operation, host: Host, watch: Callable[[], None] = lambda: None) -> None:
    """Return when the operation is done; `watch` is called meanwhile. Raises Failed with the operation's own error."""
    queue.wake(host.name)
    helper: subprocess.Popen[bytes] | None = None
    while True:
        ended = helper is not None and helper.poll() is not None
        with transaction():
            state, error = operations.outcome(operation.id)
            alive = is_alive(inventory.host(host.name))
        watch()
        if state == OperationState.DONE:
            return
        if state == OperationState.FAILED:
            raise Failed(error or "The work failed; the host's agent has the details in its log.")
        if ended:
            raise Failed(f"The work is queued, and nobody does it. Start the agent: berth agent {host.name}")
        if state == OperationState.QUEUED and not alive and helper is None:
            click.echo(f"No agent of {host.name} is alive: doing the work from here.", err=True)
            helper = running.start_work(host.name)
        time.sleep(ASK_EVERY)


def is_alive(host: Host) -> bool:
    """Whether the host's agent has been seen lately: it shows itself at each tick."""
    return host.seen_at is not None and clock.now() - host.seen_at < silence()


def silence() -> timedelta:
    """From when on an agent that says nothing is taken to be away."""
    return timedelta(seconds=3 * settings().tick + 5)
