"""`porteiro operator`: who may log in to the console."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import re
import sys
from dataclasses import asdict
from functools import partial
from typing import Final, get_args

from bridge.commands.audit import new_console, write_json
from bridge.commands.catalogue import (
    SOUND,
    Refused,
    add_places,
    author,
    carry_out,
    now,
    opened_catalogue,
)
from bridge.commands.table import table_of
from bridge.passwords import hashed, password_problem
from bridge.showing import safe
from storage.catalogue import Catalogue, Operator, Role

_LOGIN: Final = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,79}")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "operator",
        help="who may log in to the console",
        description="Operators of the console. Each change is in the audit log, with this machine's user as "
        "`by`. A password is asked for, or is the first line of standard input; it is never an argument.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="add|list|disable|enable|password")
    add = actions.add_parser("add", help="let a person in")
    add.add_argument("login", type=login, help="what they log in with: lower case")
    add.add_argument("--name", default="", help="how they are called; default: the login")
    add.add_argument("--role", choices=get_args(Role), required=True, help="what they may do")
    add.add_argument("--tenant", help="the one tenant that they may see; default: all")
    add_places(add)
    list_ = actions.add_parser("list", help="all of them")
    list_.add_argument("--tenant", help="only those of this tenant")
    list_.add_argument("--json", action="store_true", help="as a JSON array")
    add_places(list_)
    for action, text in (
        ("disable", "let them in no more; who is logged in is logged out"),
        ("enable", "let them in again"),
        ("password", "give them another password; who is logged in is logged out"),
    ):
        each = actions.add_parser(action, help=text)
        each.add_argument("login", type=login)
        add_places(each)
    parser.set_defaults(run=run)


def login(text: str) -> str:
    """A login out of an argument."""
    if not _LOGIN.fullmatch(text.lower()):
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: letters, digits and . _ @ + -")
    return text.lower()


def run(args: argparse.Namespace) -> int:
    """Do what was asked; the exit status."""
    return carry_out("operator", args, partial(_run, args))


async def _run(args: argparse.Namespace) -> int:
    async with opened_catalogue(args) as catalogue:
        if args.action == "list":
            _show(await catalogue.operators(args.tenant), as_json=args.json)
        elif args.action == "add":
            await _add(catalogue, args)
        elif args.action == "password":
            await _password(catalogue, args)
        else:
            disabled = args.action == "disable"
            await catalogue.change_operator(args.login, disabled=disabled, by=author(), at=now())
            _say(f"{args.login} may {'no longer log' if disabled else 'log'} in")
    return SOUND


def _say(line: str) -> None:
    """What was done; people at a terminal are not left to guess."""
    sys.stdout.write(f"{safe(line)}\n")


async def _add(catalogue: Catalogue, args: argparse.Namespace) -> None:
    if await catalogue.operator(args.login) is not None:  # before a password is asked for in vain
        raise Refused(f"there is an operator {args.login!r} already")
    kept = await asyncio.to_thread(hashed, await asyncio.to_thread(read_password))
    await catalogue.add_operator(
        args.login,
        name=args.name or args.login,
        password_hash=kept,
        role=args.role,
        tenant=args.tenant,
        by=author(),
        at=now(),
    )
    of = f"of {args.tenant}" if args.tenant else "of all condominiums"
    _say(f"{args.login} may log in to the console: {args.role} {of}")


async def _password(catalogue: Catalogue, args: argparse.Namespace) -> None:
    if await catalogue.operator(args.login) is None:
        raise Refused(f"there is no operator {args.login!r}")
    kept = await asyncio.to_thread(hashed, await asyncio.to_thread(read_password))
    await catalogue.set_password(args.login, kept, by=author(), at=now())
    _say(f"{args.login} has another password; whoever was logged in is logged out")


def read_password() -> str:
    """A password from the terminal, twice the same; or the first line of standard input.

    Raises:
        Refused: it may not be one.
    """
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise Refused("found two different passwords; allowed: the same twice")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if problem := password_problem(password):
        raise Refused(f"password: {problem}")
    return password


def _show(operators: list[Operator], *, as_json: bool) -> None:
    if as_json:
        write_json([asdict(one) for one in operators])
        return
    rows = (
        (
            one.login,
            one.name,
            one.role,
            one.tenant or "all",
            one.created_at[:10],
            "disabled" if one.disabled else "",
        )
        for one in operators
    )
    new_console().print(table_of(("login", "name", "role", "tenant", "since", ""), rows))
