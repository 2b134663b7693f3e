"""``porteiro call``: a telephone for AudioSocket, so that anyone can try the service without a PBX.

What is to be said stands in the order of the command line: each file is said once the other side has spoken
and then been quiet for 900 ms, ``--barge FILE@MS`` speaks over the other side MS after it began, ``--key``
presses a key in its turn.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from bridge.commands.sound import NoSound, SoundCard
from bridge.endpoints.audiosocket_frames import DTMF_DIGITS
from bridge.softphone import CallEnded, Softphone, load_wav

PORTS = {"visitor": 8080, "resident": 8081}

TURN_END_MS = 900
"""The other side has finished once it was quiet this long after speech."""

REPLY_AFTER_S = 0.4
"""What is heard sooner than this after our last word is no answer to it yet."""

TICKER_S = 0.25


@dataclass(frozen=True, slots=True)
class Say:
    """Say a file once the other side has finished; with ``barge_ms``, that long after it began to speak."""

    path: Path
    barge_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Press:
    """Press a key once the other side has finished."""

    digit: str


Step = Say | Press


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``call`` to the command line."""
    parser = subparsers.add_parser(
        "call",
        help="call the service as a PBX would, with files or a microphone",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="where the service listens (127.0.0.1)")
    parser.add_argument("--port", type=int, help="its port (8080 for a visitor, 8081 for a resident)")
    parser.add_argument("--role", choices=sorted(PORTS), default="visitor", help="who calls (visitor)")
    parser.add_argument(
        "--uuid", type=UUID, help="the call's UUID; a visitor's is made up when none is given"
    )
    for option, read, metavar, help_text in (
        ("--say", _say, "WAV", "files to say, in turn"),
        ("--barge", _barge, "FILE@MS", "speak over the other side, MS after it begins"),
        ("--key", _press, "KEY", "press a key in its turn"),
    ):
        # One list for all three: the order of the command line is the order of the call.
        parser.add_argument(
            option,
            dest="script",
            default=[],
            action="extend",
            nargs="+",
            type=read,
            metavar=metavar,
            help=help_text,
        )
    parser.add_argument("--out", type=Path, metavar="WAV", help="record the call: said left, heard right")
    parser.add_argument("--microphone", action="store_true", help="talk with microphone and loudspeaker")
    parser.add_argument("--patience", type=_seconds, default=30.0, metavar="S",
                        help="how long to wait for the other side to speak before going on (30)")  # fmt: skip
    parser.add_argument("--hang-up-after", type=_seconds, metavar="S",
                        help="hang up this long after the last say (the other side hangs up)")  # fmt: skip
    parser.add_argument("--limit", type=_seconds, default=300.0, metavar="S",
                        help="the longest that a call may take (300)")  # fmt: skip
    parser.set_defaults(run=run)


def _say(text: str) -> Step:
    return _barge(text.removeprefix("barge:")) if text.startswith("barge:") else Say(Path(text))


def _barge(text: str) -> Step:
    path, at, ms = text.rpartition("@")
    if not at or not path or not ms.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not FILE@MS, such as nao.wav@800")
    return Say(Path(path), int(ms))


def _press(text: str) -> Step:
    if len(text) != 1 or text not in DTMF_DIGITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of the keys {DTMF_DIGITS}")
    return Press(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, above 0 and below a day")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Make the call. 0 where it ended by a hang-up of either side, 1 otherwise, with the reason."""
    if args.role == "resident" and args.uuid is None:
        return _fail("a resident is called: --uuid must be that of the dial, or the visit's own")
    try:
        sounds: dict[Step, bytes] = {
            step: load_wav(step.path) for step in args.script if isinstance(step, Say)
        }
        with contextlib.ExitStack() as stack:
            card = stack.enter_context(SoundCard()) if args.microphone else None
            return asyncio.run(_call(args, sounds, card))
    except (OSError, ValueError, NoSound) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted before the call was there")


def _fail(reason: str) -> int:
    sys.stderr.write(f"porteiro call: {reason}\n")
    return 1


async def _call(args: argparse.Namespace, sounds: dict[Step, bytes], card: SoundCard | None) -> int:
    """Connect, converse, and say how it ended."""
    phone = Softphone(
        args.host,
        args.port or PORTS[args.role],
        args.uuid or uuid4(),
        microphone=card.read if card else None,
        loudspeaker=card.play if card else None,
    )
    problem = ""
    async with phone:
        status = Status(phone)
        status.line(f"connected to {phone.host}:{phone.port} as {args.role}, {phone.call_id}")
        ticker = asyncio.create_task(status.run(), name="call-status")
        try:
            async with asyncio.timeout(args.limit):
                await _converse(phone, args, sounds, status)
        except (CallEnded, asyncio.CancelledError):
            # Over, or Ctrl-C, which is how one hangs up here: either way the end is told below.
            status.line("the call ends")
        except TimeoutError:
            problem = f"still going on after {args.limit:g} s"
        finally:
            ticker.cancel()
            phone.hang_up()
            status.close()
    how = phone.closed.result()
    seconds = time.monotonic() - phone.started
    spoken = sum(span.end - span.start for span in phone.speech)
    kept = ""
    if args.out is not None:
        await asyncio.to_thread(phone.save, args.out)
        kept = f"; recorded in {args.out}"
    ending = problem or f"{how.kind}: {how.detail}"
    sys.stdout.write(f"{seconds:.1f} s, heard {spoken:.1f} s of speech; {ending}{kept}\n")
    return 0 if how.orderly and not problem else 1


async def _converse(
    phone: Softphone, args: argparse.Namespace, sounds: dict[Step, bytes], status: Status
) -> None:
    """Carry the script out, then stay until the call ends."""
    since = phone.started
    for step in args.script:
        await _wait_for_turn(phone, step, since, args.patience, status)
        if isinstance(step, Press):
            status.line(f"pressing {step.digit}")
            phone.send_key(step.digit)
            since = time.monotonic()
        else:
            status.line(
                f"saying {step.path.name}" + ("" if step.barge_ms is None else " over the other side")
            )
            await phone.say(sounds[step])
            since = time.monotonic() + REPLY_AFTER_S
    if args.hang_up_after is not None:
        await asyncio.wait([phone.closed], timeout=args.hang_up_after)
        phone.hang_up()
    await asyncio.wait([phone.closed])


async def _wait_for_turn(
    phone: Softphone, step: Step, since: float, patience_s: float, status: Status
) -> None:
    """Wait until it is time for ``step``; a side that says nothing is not waited for for ever."""
    try:
        began = await phone.wait_for_speech(since=since, timeout_s=patience_s)
    except TimeoutError:
        status.line(f"nothing heard for {patience_s:g} s, going on")
        return
    if isinstance(step, Say) and step.barge_ms is not None:
        await asyncio.sleep(began + step.barge_ms / 1000 - time.monotonic())
    else:
        await phone.wait_for_quiet(TURN_END_MS, timeout_s=86_400)


class Status:
    """What goes on, on standard error: a line for each thing that happens, and on a terminal two levels."""

    def __init__(self, phone: Softphone) -> None:
        self._phone = phone
        self._live = sys.stderr.isatty()
        self._speaking = False

    def line(self, text: str) -> None:
        """Something happened."""
        clear = "\r\x1b[K" if self._live else ""
        sys.stderr.write(f"{clear}{time.monotonic() - self._phone.started:6.1f} s  {text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Leave the terminal clean."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    async def run(self) -> None:
        """Follow the other side until cancelled."""
        while True:
            await asyncio.sleep(TICKER_S)
            if self._phone.is_hearing_speech != self._speaking:
                self._speaking = not self._speaking
                self.line("the other side speaks" if self._speaking else "the other side is quiet")
            if self._live:
                self._tick()

    def _tick(self) -> None:
        seconds = time.monotonic() - self._phone.started
        said = "speaking" if self._phone.is_speaking else "silent"
        sys.stderr.write(f"\r\x1b[K{seconds:6.1f} s  here {said:8}  there {meter(self._phone.level)}")
        sys.stderr.flush()


def meter(dbov: float, width: int = 20) -> str:
    """A level from -60 dBov up as a bar."""
    filled = round(max(0.0, min(1.0, (dbov + 60) / 60)) * width)
    return "#" * filled + "." * (width - filled)


__all__: Sequence[str] = ["Press", "Say", "Step", "add_parser", "run"]
