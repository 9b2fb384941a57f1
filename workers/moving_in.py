"""Makes a machine its owner's: the account inside, the doors that lead there, the person's keys, a password.

Each function may be repeated: the creation calls them, an agent that takes up its work does, and so does the doorman.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from app.drivers.base import DriverError, GiveUp, LxdDriver, TryAgain
from app.drivers.doors import BUSY, Doorway
from app.drivers.inside import shell
from app.drivers.knocking import PortTaken
from app.errors import RuleRefused
from app.extensions import transaction
from app.services import access, instances, inventory, operations, ports
from app.services.access import Entrance
from app.services.unix_ids import COMMON_GID
from workers import scripts

if TYPE_CHECKING:
    from workers.works import Work

log = logging.getLogger(__name__)

SETTLE_LIMIT = 40.0  # seconds: new keys and a certificate, on a host that is busy
OTHER_NUMBERS = 10  # ports tried for one door before it is left to the doorman


def create(work: Work) -> None:
    """Make the machine, start it, and make it its owner's. What the image lacks is shown, and no reason to fail."""
    work.driver.create(instances.spec(work.instance), work.progress)
    work.progress("account", 0)
    entrance = _entrance(work)
    with ThreadPoolExecutor(1, thread_name_prefix="account") as pool:  # LXD takes a second for each door
        settling = pool.submit(_settled, work.driver, entrance)
        for port_id in entrance.doors:
            _open_some_door(work, port_id)
        work.progress("account", 60)
        _note_settled(entrance, *settling.result())
    write_keys(work.driver, entrance)


def start(work: Work) -> None:
    """Start it."""
    work.progress("starting", 10)
    _come_up(work)


def start_with_keys(work: Work) -> None:
    """Start it with a disk that may be of another day: the keys on it that are none any more count no longer than it
    takes to write those of now. Where there are no doors, nobody asked for keys."""
    entrance = _come_up(work)
    if entrance.doors:
        write_keys(work.driver, entrance)


def _come_up(work: Work) -> Entrance:
    """A port that somebody else has must not keep it from starting."""
    entrance = _entrance(work)
    make_way(work.driver, entrance)
    work.driver.start(work.instance.name)
    _ask_anew(entrance)
    return entrance


def restart(work: Work) -> None:
    """Stop and start it; where its port is taken in between, it starts without. Done again, it stops nothing that
    people may be at. Not LXD's own restart: that brings a GPU along that was taken away meanwhile."""
    if not work.operation.details.get("stopped"):
        work.progress("stopping", 10)
        try:
            halt(work.driver, work.instance.name)
        except DriverError:
            with suppress(DriverError):  # the first error is the one to tell of
                work.driver.start(work.instance.name)
            raise
        with transaction():
            operations.remember(work.operation.id, stopped=True)
    _come_up(work)


def halt(driver: LxdDriver, instance: str) -> None:
    """Stop it, at once where it does not obey."""
    try:
        driver.stop(instance)
    except TryAgain:
        driver.stop(instance, force=True)


def set_password(work: Work) -> None:
    """Give the account inside the password with this hash."""
    work.progress("account", 20)
    entrance = _entrance(work)
    what = f"Set the password in {entrance.name}"
    for _again in range(2):
        command = shell(
            scripts.NEW_HASH, stdin=str(work.operation.details["hash"]).encode(), BERTH_LOGIN=entrance.login
        )
        answer = work.driver.run(entrance.name, command)
        if answer.well:
            return
        settle(work.driver, entrance)  # the account may be missing
    raise GiveUp(what, answer.text.strip()[:200] or "the machine refused", "Press Mend on the machine's page.")


def settle(driver: LxdDriver, entrance: Entrance) -> None:
    """The account, sudo, host keys, certificate; what came of it goes into the machine's health."""
    _note_settled(entrance, *_settled(driver, entrance))


def _settled(driver: LxdDriver, entrance: Entrance) -> tuple[int, list[str]]:
    """The script's status, -1 where it could not be run, and what it said. Touches no database."""
    command = shell(
        scripts.SETTLE,
        limit=SETTLE_LIMIT,
        BERTH_LOGIN=entrance.login,
        BERTH_UID=str(entrance.uid),
        BERTH_COMMON=str(COMMON_GID),
        BERTH_MARK=entrance.mark,
    )
    try:
        answer = driver.run(entrance.name, command)
    except DriverError as error:
        log.warning("the account in %s is not made yet: %s", entrance.name, error)
        return -1, []
    return answer.status, answer.text.splitlines()


def _note_settled(entrance: Entrance, status: int, lines: list[str]) -> None:
    words = {0: "ok", scripts.TAKEN: "taken"}
    with transaction():
        access.note(
            entrance.instance_id,
            account=words.get(status, "failed"),
            missing=access.missing(line.removeprefix("missing ") for line in lines),
            uid=access.account_uid(lines),
            host_keys=access.host_keys("\n".join(lines)),
        )


def write_keys(driver: LxdDriver, entrance: Entrance) -> bool:
    """Put the owner's keys into the machine, and those that are none any more out; whether that worked."""
    text = "\n".join(entrance.keys).encode()
    command = shell(scripts.KEYS, stdin=text, BERTH_LOGIN=entrance.login, BERTH_WRITE=scripts.WRITE)
    try:
        answer = driver.run(entrance.name, command)
    except DriverError as error:
        log.warning("the keys are not in %s yet: %s", entrance.name, error)
        return False
    if answer.well:
        with transaction():
            access.wrote_keys(entrance.instance_id, entrance.keys_at)
    return answer.well


def open_door(driver: LxdDriver, instance: str, port_id: int, entrance: Entrance) -> str:
    """Open one door; why it is not, or "". Written down either way."""
    trouble = ""
    try:
        driver.open_door(instance, entrance.doors[port_id])
    except PortTaken as error:
        trouble = error.reason
    except DriverError as error:
        trouble = str(error)[:500]
    with transaction():
        ports.note(port_id, trouble)
    return trouble


def make_way(driver: LxdDriver, entrance: Entrance) -> None:
    """Before a start: LXD starts no instance with a door whose port somebody else has."""
    doorway = driver.doorways().get(entrance.name)
    if doorway is None or doorway.status != "stopped":  # of one that runs, it has them itself
        return
    clear(driver, entrance, doorway)


def clear(driver: LxdDriver, entrance: Entrance, doorway: Doorway) -> None:
    """Take the doors of a stopped instance away that it could not open."""
    for port_id, door in entrance.doors.items():
        if doorway.has(door) and (reason := driver.taken(door)):
            driver.close_door(entrance.name, door.purpose)
            with transaction():
                ports.note(port_id, reason)


def _ask_anew(entrance: Entrance) -> None:
    """What answered before a start may not do so any more, and nobody has asked yet."""
    with transaction():
        access.note(entrance.instance_id, ssh=None, rdp=None)


def _open_some_door(work: Work, port_id: int) -> None:
    """At a creation nobody knows the number yet: another one does as well."""
    for _attempt in range(OTHER_NUMBERS):
        if open_door(work.driver, work.instance.name, port_id, _entrance(work)) != BUSY:
            return
        try:
            with transaction():
                port_id = ports.replace(port_id, inventory.host_of(work.operation.host_id)).id
        except RuleRefused as error:
            work.note(f"{error}\n")
            return


def _entrance(work: Work) -> Entrance:
    with transaction():
        return access.entrances(inventory.host_of(work.operation.host_id), work.instance.id)[0]
