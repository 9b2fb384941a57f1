"""`berth host init`: what a fresh workstation lacks, and doing it. Runs as root, and needs no database to begin with.

Each step looks first, so that it can be run again: after something failed, or with other wishes.
"""

from __future__ import annotations

from app.services.hostinit.lxd import Bridge, Lxd, Packages, Pool, Profile
from app.services.hostinit.project import Project
from app.services.hostinit.services import Agent, Firewall, Known, Ports, environment
from app.services.hostinit.step import Outcome, State, Step, Trouble, go
from app.services.hostinit.wish import Wish

__all__ = ["Outcome", "Project", "State", "Step", "Trouble", "Wish", "environment", "go", "steps"]


def steps(wish: Wish, *, agent: bool = True) -> list[Step]:
    """All of it, in order: the rules of the bridge before the bridge, and the agent last, where it is to be a service
    of its own."""
    lxd: list[Step] = [Pool(wish), Bridge(wish), Profile(wish), Project()]
    host: list[Step] = [Packages(wish), Lxd(wish), Firewall(wish), *lxd, Ports(wish)]
    return [*host, Known(wish), Agent(wish)] if agent else host
