"""`berth user …`, `berth token …`, `berth quota …`."""

from __future__ import annotations

import sys

import click
from email_validator import EmailNotValidError, validate_email

from app.cli.base import ACTOR, Failed, json_option, print_json, show, somebody, with_app
from app.cli.work import carry_out, silence
from app.extensions import lab_zone, transaction
from app.services import accounts, admission, lost_passwords, people, policy, quota, tokens


def _address(_context: click.Context, _option: click.Parameter, text: str) -> str:
    """An address or nothing, by the rules of the form in which people set their own (WTForms' Email)."""
    text = text.strip()
    try:
        if text:
            validate_email(text, check_deliverability=False, allow_smtputf8=True, allow_empty_local=False)
    except EmailNotValidError:
        raise click.BadParameter(f"{text!r} is no address. Use one such as li.wei@example.org.") from None
    return text


@click.group()
def user() -> None:
    """People."""


@user.command()
@click.argument("name")
@click.option("--admin", is_flag=True, help="Make them an admin.")
@click.option("--password-stdin", is_flag=True, required=True, help="Read the password from the first line of stdin.")
@click.option("--full-name", default="", help="The name that others see.")
@click.option("--email", default="", callback=_address, help="Their e-mail address.")
@click.option("--hours", type=float, default=0.0, help="GPU-hours a month (default: none yet).")
@with_app
def add(name: str, admin: bool, password_stdin: bool, full_name: str, email: str, hours: float) -> None:
    """Make an account, approved at once."""
    assert password_stdin
    password = _password_from_stdin("add")
    with transaction():
        accounts.add(
            name,
            password,
            actor=ACTOR,
            zone=lab_zone(),
            admin=admin,
            full_name=full_name,
            email=email,
            hours=hours,
        )
    click.echo(f"{name} can sign in.")


@user.command()
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read it from the first line of stdin; else one is made.")
@with_app
def password(name: str, password_stdin: bool) -> None:
    """Give somebody who lost it a new password, and print it alone; they are signed out everywhere."""
    typed = _password_from_stdin("password") if password_stdin else ""
    with transaction():
        text = typed or lost_passwords.generate(accounts.get(name))
        lost_passwords.set_password(name, text, actor=ACTOR)
    click.echo(f"{name} has a new password." if typed else text)


@user.command()
@click.argument("name")
@click.option("--hours", type=float, help="GPU-hours a month (default: the lab's).")
@click.option("--template", default="", help="Make their machine from it too, on the host with the most room.")
@with_app
def approve(name: str, hours: float | None, template: str) -> None:
    """Let somebody in who waits; with --template, returns when their machine runs."""
    with transaction():
        monthly = policy.current().default_hours if hours is None else hours
        admitted = admission.approve(
            name, monthly, actor=somebody(), zone=lab_zone(), template=template, silence=silence()
        )
    click.echo(f"{name} can sign in, with {monthly:g} GPU-hours a month.")
    if admitted.refused is not None:
        raise Failed(f"{name} has no machine yet. {admitted.refused}")
    if admitted.operation is not None and admitted.host is not None:
        carry_out(admitted.operation, admitted.host)
        click.echo(f"{admitted.name} runs on {admitted.host.name}.")


@user.command("list")
@json_option
@with_app
def list_(as_json: bool) -> None:
    """Everybody."""
    rows: list[people.Row] = []
    with transaction():
        for page in range(1, 1_000_000):
            found = people.search(lab_zone(), page=page)
            rows += found.rows
            if not found.rows or len(rows) >= found.total:
                break
    shown = [
        {
            "username": row.user.username,
            "name": row.user.full_name,
            "role": str(row.user.role),
            "state": str(row.user.state),
            "free_hours": round(row.user.account.balance / 3600, 2) if row.user.account else None,
            "machines": list(row.machines),
        }
        for row in rows
    ]
    show(shown, as_json=as_json, empty="Nobody yet.")


def _password_from_stdin(command: str) -> str:
    password = sys.stdin.readline(2000).rstrip("\r\n")
    if not password:
        raise Failed(f"There is no password on stdin. Pipe it in: printf %s PASSWORD | berth user {command} …")
    return password


@click.group()
def token() -> None:
    """Tokens for the API."""


@token.command()
@click.argument("name", metavar="USER")
@click.option("--name", "label", default="command line", help="What it is for.")
@click.option("--days", type=int, default=tokens.DEFAULT_DAYS, show_default=True, help="How long it lives.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(tokens.SCOPES),
    help="May be repeated (default: all they may).",
)
@json_option
@with_app
def create(name: str, label: str, days: int, scopes: tuple[str, ...], as_json: bool) -> None:
    """Make a token for a person and print it, this once."""
    with transaction():
        person = accounts.get(name)
        every = tokens.SCOPES if person.is_admin else (tokens.READ, tokens.BOOK)
        made, text = tokens.create(person, label, scopes or every, days, actor=ACTOR)
    if as_json:
        until = made.expires_at.isoformat().replace("+00:00", "Z")
        print_json({"token": text, "id": made.id, "scopes": made.scopes.split(), "expires_at": until})
    else:
        click.echo(text)


@click.group("quota")
def quota_() -> None:
    """Quota in GPU-hours."""


@quota_.command(context_settings={"ignore_unknown_options": True})  # so that -5 is a number
@click.argument("account")
@click.argument("hours", type=float)
@click.option("--note", default="", help="For whoever reads the ledger.")
@json_option
@with_app
def grant(account: str, hours: float, note: str, as_json: bool) -> None:
    """Add GPU-hours to an account; a negative number takes them away. A person's account has the person's name."""
    with transaction():
        target = quota.account(account)
        quota.grant(target, hours, actor=ACTOR, note=note)
        free = round(quota.free(target.id) / 3600, 2)
    if as_json:
        print_json({"account": account, "granted": hours, "free": free})
    else:
        click.echo(f"{account} may still hold {free:g} GPU-hours.")


COMMANDS = (user, token, quota_)
