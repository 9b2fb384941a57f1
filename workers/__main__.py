"""`python -m workers up`, `… agent HOST`, `… pass HOST`, `… work HOST`: what `berth` starts in its own place."""

from __future__ import annotations

import argparse
import json
import logging
import sys

from app import create_core
from app.config import BadSettings, Settings
from app.drivers.base import DriverError
from app.errors import DomainError

FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


def main(arguments: list[str] | None = None) -> int:
    """Run one of them; the exit status is 0 only when all is done, 2 for settings that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m workers")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="everything: database, Valkey, portal, agents")
    commands.add_parser("agent", help="one host's agent").add_argument("host")
    one = commands.add_parser("pass", help="one pass over a host")
    one.add_argument("host")
    one.add_argument("--json", action="store_true")
    commands.add_parser("work", help="one host's queued operations, once").add_argument("host")
    commands.add_parser("share", help="one host's shared directories, once").add_argument("host")
    commands.add_parser("post", help="the postman: tells people what happened")
    options = parser.parse_args(arguments)
    logging.basicConfig(format=FORMAT, level=logging.INFO, stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        if options.command == "up":
            from workers import supervisor  # noqa: PLC0415 - an agent needs none of it

            return supervisor.main()
        if options.command == "post":
            from workers import postman  # noqa: PLC0415 - likewise

            postman.main(create_core(Settings.load()))
            return 0
        return _agent(options)
    except BadSettings as error:
        print(error, file=sys.stderr)
        return 2
    except (DomainError, DriverError) as error:
        print(error, file=sys.stderr)
        return 1


def _agent(options: argparse.Namespace) -> int:
    from workers import agent, telling  # noqa: PLC0415 - the supervisor needs none of it
    from workers.doorman import Doorman  # noqa: PLC0415

    looking_after = agent.make(create_core(Settings.load()), options.host)
    if options.command == "agent":
        looking_after.run()
        return 0
    if options.command == "work":
        looking_after.work(wait=True)
        Doorman(looking_after.app, options.host, looking_after.driver).step()  # keys are no operation
        return 0
    if options.command == "share":
        looking_after.sharer.step()
        return 0
    result = looking_after.one_pass()
    lines = telling.describe(result)
    if options.json:
        print(json.dumps({"ok": result.ok, "ms": result.milliseconds, "trouble": result.trouble, "done": lines}))
    else:
        print("\n".join(lines or ["nothing to do"]))
        if result.trouble:
            print(result.trouble, file=sys.stderr)
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
