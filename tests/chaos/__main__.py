"""``python -m tests.chaos --visits 1000``: so many visits by chance, with providers that break."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import structlog
import uvloop
from rich.console import Console

from tests.chaos.visits import run


def main() -> int:
    """Exits with 1 where anything happened that must never happen."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--visits", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, help="write the service's log there")
    options = parser.parse_args()
    say = Console(highlight=False, soft_wrap=True, markup=False).print
    with tempfile.TemporaryDirectory() as folder, (options.log or Path(os.devnull)).open("w") as log:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(log))
        found = uvloop.run(run(options.visits, options.seed, Path(folder), log=log, say=say))
    say(f"{sum(found.outcomes.values())} visits in {found.seconds:.0f} s, seed {options.seed}")
    say("outcomes:", ", ".join(f"{name} {count}" for name, count in found.outcomes.most_common()))
    say(
        "done to the providers:", ", ".join(f"{name} {count}" for name, count in found.troubles.most_common())
    )
    say(f"sessions lost: {found.losses}; gates opened: {found.opened}")
    for fault in found.faults:
        say("FAULT", fault)
    say("nothing happened that must never happen" if not found.faults else f"{len(found.faults)} faults")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
