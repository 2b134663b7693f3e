"""`porteiro bench`: how much a call costs, and how long the sound takes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from audio.vad import VadModel
from bench.callers import CallLost
from bench.children import ChildError
from bench.clock import measure_clock
from bench.heard import kept, measure_heard
from bench.hearing import modes, scenes
from bench.hearing import run as hear
from bench.model_process import PACE
from bench.peers.measure import PEERS, PeerError, compare
from bench.quality import Figure, Words, lines, recognised, sound_figures, spoken
from bench.run import Plan, measure
from bench.soak import complaints, measure_soak
from bench.visits import measure_visits, strays
from bench.voice import measure_voice
from bridge.model_server import ModelServerError
from bridge.runner import silero_onnx
from bridge.settings import SettingsError, load
from providers.local.models import ModelError, verified_dir
from providers.local.recognition import Recogniser
from storage.base import StorageError

SPREADS = (
    ("added latency up", "latency_up_ms", "total"),
    ("  kept back by the resampler", "latency_up_ms", "algorithmic"),
    ("  processing", "latency_up_ms", "processing"),
    ("added latency down", "latency_down_ms", "total"),
    ("  until the frame is due", "latency_down_ms", "grid"),
    ("  processing", "latency_down_ms", "processing"),
    ("  each further piece, beyond its turn", "latency_down_ms", "each_piece"),
    ("frames behind the 20 ms grid", "frame_lateness_ms", None),
    ("barge-in: first sound to our last frame", "barge_in_ms", None),
    ("  as the service reckons", "service_says", "barge_in_ms"),
    ("the service's ticks behind", "service_says", "tick_lateness_ms"),
    ("the callers' own ticks behind", "callers_say", "tick_lateness_ms"),
)
FORMATS = ("pcm24", "pcmu", "pcma")
COLUMNS = ("count", "p50", "p95", "p99", "max")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "bench",
        help="measure the media path under load",
        description="Runs the service in a process of its own, between callers who speak recordings over "
        "AudioSocket and a model server that replays recorded replies. Measures the service's CPU time and "
        "memory, and at both edges how long the sound takes.",
    )
    parser.add_argument(
        "--clock", action="store_true", help="instead: one call that listens, and how exact its frames are"
    )
    parser.add_argument(
        "--calls",
        type=_counts,
        metavar="N",
        help="at the same time (10; --heard 40, --soak 20); with --peer several numbers, as in 1,5,20",
    )
    parser.add_argument("--seconds", type=float, metavar="S", help="that are measured (20; with --clock 60)")
    parser.add_argument(
        "--talk", type=float, default=0.4, metavar="SHARE", help="of the time that callers speak (0.4)"
    )
    parser.add_argument(
        "--pace",
        type=float,
        default=PACE,
        metavar="X",
        help=f"how much faster than real time the model's replies come ({PACE:g})",
    )
    parser.add_argument(
        "--provider-format",
        choices=FORMATS,
        default=FORMATS[0],
        help=f"how audio goes to the model and back ({FORMATS[0]})",
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that run the visits (1)"
    )
    parser.add_argument("--record", action="store_true", help="with each leg recorded")
    parser.add_argument(
        "--heard",
        type=int,
        nargs="?",
        const=1000,
        metavar="N",
        help="instead: N barge-ins at random instants (1000), and whether the model is told what was heard",
    )
    parser.add_argument(
        "--soak",
        action="store_true",
        help="instead: calls that come and go, and whether memory, tasks, descriptors or threads grow; "
        "it may run on a busy machine",
    )
    parser.add_argument(
        "--hearing",
        action="store_true",
        help="instead: barge-ins caught and false ones, with our echo and noise, in simulated time",
    )
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="of each situation with --hearing (10), of --soak (60)"
    )
    parser.add_argument(
        "--visits",
        action="store_true",
        help="instead: how long callers wait for an answer, over whole visits on recorded speech",
    )
    parser.add_argument(
        "--quality",
        action="store_true",
        help="instead: what the way to the model and back does to tones, sentences and words",
    )
    parser.add_argument(
        "--recordings",
        type=int,
        default=21,
        metavar="N",
        help="recognised with --quality, over each kind of line; at most 84, 0 for tones alone (21)",
    )
    parser.add_argument(
        "--peer",
        choices=PEERS,
        help="instead: CPU time of ours and of this project's under the same load, one after the other; "
        "it is installed into .cache/peers",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def _counts(text: str) -> list[int]:
    try:
        return [int(count) for count in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed are numbers, as 10, or 1,5,20") from None


def run(arguments: argparse.Namespace) -> int:
    """Measure; 1 where it can't be measured, with the reason."""
    console = Console(stderr=arguments.json, highlight=False)
    if arguments.hearing:
        return hearing(10.0 if arguments.minutes is None else arguments.minutes, arguments.json, console)
    if arguments.quality:
        return quality(arguments.recordings, arguments.json, console)
    if arguments.visits:
        return visits(arguments.json, console)
    if arguments.calls is None:
        arguments.calls = [40 if arguments.heard is not None else 20 if arguments.soak else 10]
    usual = 60.0 if arguments.clock else 20.0
    seconds = usual if arguments.seconds is None else arguments.seconds

    def tell(words: str) -> None:
        console.print(words, style="dim")

    try:
        if arguments.clock:
            found = measure_clock(seconds, tell)
        elif arguments.soak:
            minutes = 60.0 if arguments.minutes is None else arguments.minutes
            model, workers = VadModel(silero_onnx()), arguments.workers
            found = measure_soak(minutes, _one(arguments.calls), workers, model, tell)
        elif arguments.heard is not None:
            found = measure_heard(arguments.heard, _one(arguments.calls), tell)
        elif arguments.peer:
            found = compare(arguments.peer, arguments.calls, seconds, arguments.talk, tell)
        else:
            found = measure(_plan(arguments, seconds), tell)
    except (ValueError, CallLost, ChildError, PeerError, OSError) as error:
        sys.stderr.write(f"porteiro bench: {error}\n")
        return 1
    if arguments.json:
        sys.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n")
    elif arguments.clock:
        show_clock(found, console)
    elif arguments.soak:
        show_soak(found, console)
    elif arguments.heard is not None:
        show_heard(found, console)
    elif arguments.peer:
        show_peer(found, console)
    else:
        show(found, console)
    wrong = complaints(found) if arguments.soak else []
    for line in wrong:
        sys.stderr.write(f"porteiro bench: {line}\n")
    return 1 if wrong or (arguments.heard is not None and not kept(found)) else 0


def _plan(arguments: argparse.Namespace, seconds: float) -> Plan:
    return Plan(
        _one(arguments.calls),
        seconds,
        talk=arguments.talk,
        record=arguments.record,
        pace=arguments.pace,
        provider_format=arguments.provider_format,
        workers=arguments.workers,
    )


def _one(counts: Sequence[int]) -> int:
    if len(counts) != 1:
        raise ValueError(f"calls: found {len(counts)} numbers; allowed is one, and several with --peer")
    return counts[0]


def show_peer(found: Mapping[str, Any], console: Console) -> None:
    """Ours and the peer's, for people."""
    show_machine(found, console)
    peer = found["peer"]
    table = Table("calls", box=None, pad_edge=False)
    for column in (
        "ours, CPU ms a call-second",
        f"{peer}, CPU ms a call-second",
        "ratio",
        "ours, callers spoke",
        f"{peer}, callers spoke",
        f"{peer}, replies heard",
    ):
        table.add_column(column, justify="right")
    for row in found["rows"]:
        ours, theirs = row["ours"], row["theirs"]
        table.add_row(
            f"{row['calls']}",
            f"{ours['cpu']['ms_per_call_second']:g}",
            f"{theirs['cpu']['ms_per_call_second']:g}",
            f"{row['ratio']:g}",
            f"{ours['spoken_share']:.0%}",
            f"{theirs['spoken_share']:.0%}",
            f"{theirs['heard_share']:.0%} of the time",
        )
    console.print(table)


def hearing(minutes: float, as_json: bool, console: Console) -> int:
    """Measure how well a leg hears."""
    if not 1 <= minutes <= 600:
        sys.stderr.write(f"porteiro bench: minutes: found {minutes:g}; allowed are 1 to 600\n")
        return 1
    model = VadModel(silero_onnx())
    found: dict[str, Any] = {}
    for scene in scenes(minutes):
        console.print(f"{scene.name} …", style="dim")
        found[scene.name] = {mode: hear(model, replace(scene, mode=mode)).figures() for mode in modes(scene)}
    console.print("the voice detector after two minutes of noise, and in a crowd …", style="dim")
    voice = measure_voice(model, minutes=round(min(minutes, 10)))
    if as_json:
        both = {"situations": found, "vad": voice}
        sys.stdout.write(orjson.dumps(both, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        show_hearing(found, voice, console)
    return 0


def show_hearing(found: Mapping[str, Any], voice: Mapping[str, Any], console: Console) -> None:
    """What was heard, for people."""
    table = Table("", "echo.mode", box=None, pad_edge=False)
    for column in ("minutes", "false barge-ins", "callers", "heard", "p50 ms", "p95 ms"):
        table.add_column(column, justify="right")
    for name, by_mode in found.items():
        for mode, figures in by_mode.items():
            values = ("–" if value is None else f"{value:g}" for value in figures.values())
            table.add_row(name if mode == "guard" else "", mode, *values)
    console.print(table)
    table = Table("the voice detector", box=None, pad_edge=False)
    for column in (
        "missed after 2 min of noise",
        "begin found, p95 ms",
        "triggers a minute, crowd of 10",
        "crowd of 20",
    ):
        table.add_column(column, justify="right")
    for name, label in (("forgets", "state forgotten in pauses"), ("keeps", "state kept for ever")):
        after, ten, twenty = (voice[name][part] for part in ("after_noise", "crowd_of_10", "crowd_of_20"))
        table.add_row(
            label,
            f"{after['missed']} of {after['spoken']}",
            "–" if after["p95_ms"] is None else f"{after['p95_ms']:g}",
            f"{ten['triggers_a_minute']:g}",
            f"{twenty['triggers_a_minute']:g}",
        )
    console.print(table)


def quality(recordings: int, as_json: bool, console: Console) -> int:
    """Measure what the bridge does to sound; 1 where a figure is out of its bounds."""
    if not 0 <= recordings <= 84:
        sys.stderr.write(f"porteiro bench: recordings: found {recordings}; allowed are 0 to 84\n")
        return 1
    try:
        words = list(_words(recordings, console)) if recordings else []
    except (ModelError, SettingsError) as error:
        sys.stderr.write(f"porteiro bench: {error}\n")
        return 1
    console.print("tones …", style="dim")
    figures = sound_figures()
    if as_json:
        found = {"sound": figures, "words": words, "kept": all(figure.kept for figure in figures)}
        sys.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        show_quality(figures, words, console)
    return 0 if all(figure.kept for figure in figures) else 1


def _words(recordings: int, console: Console) -> Iterator[Words]:
    """Over one kind of line after the other."""
    recogniser = Recogniser(verified_dir(load(None).service.models_path), VadModel(silero_onnx()))
    try:
        for name, line in lines().items():
            console.print(f"{recordings} recordings, {name} …", style="dim")
            yield recognised(recogniser, name, line, spoken(recordings))
    finally:
        recogniser.close()


def show_quality(figures: Sequence[Figure], words: Sequence[Words], console: Console) -> None:
    """What became of the sound, for people."""
    table = Table("sound", "measured", "allowed", "", box=None, pad_edge=False)
    for figure in figures:
        bound = "–" if figure.most is None else f"at most {figure.most:g}"
        measured = f"{round(figure.value, 3) + 0.0:g} {figure.unit}"
        table.add_row(figure.name, measured, bound, "" if figure.kept else "TOO MUCH")
    console.print(table)
    if words:
        table = Table("words recognised", "of", "direct", "bridged", box=None, pad_edge=False)
        for one in words:
            table.add_row(one.line, f"{one.words}", f"{one.direct:.1%}", f"{one.bridged:.1%}")
        console.print(table)


def visits(as_json: bool, console: Console) -> int:
    """Measure how long callers wait for an answer; 1 where a visit took another course than it must."""
    try:
        found = measure_visits(lambda words: console.print(words, style="dim"))
    except (SettingsError, StorageError, ModelServerError, OSError, TimeoutError) as error:
        sys.stderr.write(f"porteiro bench: {error}\n")
        return 1
    if as_json:
        sys.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        show_machine(found, console)
        table = Table("ms from the caller's last sound to our first", box=None, pad_edge=False)
        for column in COLUMNS:
            table.add_column(column, justify="right")
        for label, values in found["response_ms"].items():
            table.add_row(label, *("–" if values[name] is None else f"{values[name]:g}" for name in COLUMNS))
        console.print(table)
    astray = strays(found["visits"])
    for line in astray:
        sys.stderr.write(f"porteiro bench: {line}\n")
    return 1 if astray else 0


def show_clock(found: Mapping[str, Any], console: Console) -> None:
    """How exact the frames were, for people."""
    show_machine(found, console)
    ours, sleeper = found["socket"], found["sleeper"]
    console.print(
        f"frames within 5 ms of their 20 ms grid, at the AudioSocket socket, over {found['seconds']:g} s "
        f"({found['spoken_share']:.0%} of it speech): {ours['near']:.2%} of {ours['count']}, the worst "
        f"{ours['worst_ms']:.1f} ms off",
        soft_wrap=True,
    )
    console.print(
        f"a thread that only sleeps: {sleeper['near']:.2%}, the worst {sleeper['worst_ms']:.1f} ms off",
        soft_wrap=True,
    )


def show_heard(found: Mapping[str, Any], console: Console) -> None:
    """What the model was told of what was heard, for people."""
    show_machine(found, console)
    off = found["off_ms"]
    console.print(
        f"{found['barge_ins']} barge-ins at random instants, {found['calls']} calls, {found['seconds']:g} s; "
        f"of {found['of_which_nothing_was_heard']} replies nothing was heard",
        soft_wrap=True,
    )
    console.print(
        f"told within a frame (20 ms) of what was heard: {found['within_a_frame']} of {found['barge_ins']}; "
        f"off by p50 {off['p50']:g}, p99 {off['p99']:g}, max {off['max']:g} ms "
        f"({found['too_much_at_most_ms']:g} too much, {found['too_little_at_most_ms']:g} too little)"
        if found["barge_ins"]
        else "the provider was told of none",
        soft_wrap=True,
    )
    errors = ", ".join(f"{code}: {count}" for code, count in found["provider_errors"].items())
    console.print(f"refused by the provider: {errors or 'nothing'}", soft_wrap=True)


def show_soak(found: Mapping[str, Any], console: Console) -> None:
    """What grew and what didn't, for people."""
    show_machine(found, console)
    console.print(
        f"{found['minutes']:g} minutes, {found['calls']} calls that came and went, about "
        f"{found['calls_at_a_time']} at a time; {found['barge_ins']} barge-ins; judged from minute "
        f"{found['judged_from_minute']:g} on",
        soft_wrap=True,
    )
    table = Table("the service's", box=None, pad_edge=False)
    for column in ("first fourth", "last fourth", "most", "grows per hour", "± (95 %)"):
        table.add_column(column, justify="right")
    for name, grown in found["growth"].items():
        values = (grown[part] for part in ("first", "last", "most", "per_hour", "sure"))
        table.add_row(name.replace("_", " "), *(f"{value:.2f}" for value in values))
    console.print(table if found["growth"] else "too short to tell what grows")
    vad = found["vad"]
    console.print(
        f"VAD over {vad['leg_hours']:g} hours of noise ({vad['legs']} legs, {vad['hours_each']:g} h each, in "
        f"{vad['took_s']:g} s): {vad['before']['heard']} of {vad['before']['spoken']} onsets heard before, "
        f"{vad['after']['heard']} of {vad['after']['spoken']} after; {vad['false_onsets_per_hour']:g} false "
        "an hour",
        soft_wrap=True,
    )


def show_machine(found: Mapping[str, Any], console: Console) -> None:
    """What it ran on."""
    where = found["machine"]
    console.print(
        f"{where['system']}, Python {where['python']}, {where['cores']} cores, load "
        f"{where['load_average'][0]:g}, yardstick {where['yardstick_ms']:g} ms",
        soft_wrap=True,
    )


def show(found: Mapping[str, Any], console: Console) -> None:
    """The figures, for people."""
    plan, cpu, memory = (found[part] for part in ("plan", "cpu", "memory"))
    console.print(
        f"{found['at']}  {plan['calls']} calls, {plan['seconds']:g} s, {plan['workers']} worker(s), "
        f"{plan['provider_format']}, recording {'on' if plan['record'] else 'off'}; callers spoke "
        f"{found['spoken_share']:.0%} of the time",
        soft_wrap=True,
    )
    show_machine(found, console)
    console.print(
        f"CPU     {cpu['ms_per_call_second']:g} ms a call-second ({cpu['user_ms_per_call_second']:g} user, "
        f"{cpu['system_ms_per_call_second']:g} system), {cpu['share_of_a_core']:.0%} of a core, "
        f"{cpu['waits_per_second']:g} waits a second",
        soft_wrap=True,
    )
    for who, label in (("callers", "callers"), ("model", "model")):
        load = found["load_cpu"][who]
        console.print(
            f"        beside it the {label}: {load['ms_per_call_second']:g} ms a call-second, "
            f"{load['share_of_a_core']:.0%} of a core",
            soft_wrap=True,
        )
    console.print(
        f"memory  {memory['mb_per_call']:g} MB a call ({memory['idle_mb']:g} MB idle, "
        f"{memory['loaded_mb']:g} MB loaded)",
        soft_wrap=True,
    )
    table = Table("milliseconds", box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for label, part, within in SPREADS:
        if part not in found:
            continue  # of several workers the service says nothing
        values = found[part][within] if within else found[part]
        table.add_row(label, *("–" if values[name] is None else f"{values[name]:g}" for name in COLUMNS))
    console.print(table)
    lost = {name.replace("_", " "): count for name, count in found["lost"].items() if count}
    console.print("lost    " + (", ".join(f"{name}: {count:g}" for name, count in lost.items()) or "nothing"))
