"""`porteiro`: the command line. Each command lies in bridge/commands/, in the file of its name."""

from __future__ import annotations

import argparse
import importlib
import keyword
import sys
from collections.abc import Sequence
from importlib.metadata import version

COMMANDS = (
    "serve",
    "demo",
    "call",
    "check",
    "health",
    "audit",
    "cost",
    "person",
    "retention",
    "webhook",
    "db",
    "import",
    "tenant",
    "operator",
    "key",
    "models",
    "model-server",
    "bench",
)


def _module(command: str) -> str:
    """The file of a command; `import` is a word of Python's own."""
    return f"{command}_" if keyword.iskeyword(command) else command.replace("-", "_")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    given = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(
        prog="porteiro", description="A doorman for condominiums that talks, asks the resident, and opens."
    )
    parser.add_argument("--version", action="version", version=f"porteiro {version('porteiro')}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # A command loads what it needs and no more: `porteiro check` must not wait for the speech libraries.
    wanted = [given[0]] if given and given[0] in COMMANDS else COMMANDS
    modules = {name: importlib.import_module(f"bridge.commands.{_module(name)}") for name in wanted}
    for module in modules.values():
        module.add_parser(subparsers)
    arguments = parser.parse_args(given)
    try:
        status: int = modules[arguments.command].run(arguments)
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
