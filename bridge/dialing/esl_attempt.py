"""One attempt to call a resident through FreeSWITCH, without I/O: what its causes and events mean.

``originate`` answers with the cause of the channel that failed (Q.850 by name, switch_types.h); a channel
that was answered says what became of it by events.
"""

from __future__ import annotations

from collections.abc import Mapping

from bridge.dialing.base import DialResult
from bridge.esl_frames import Event
from visits.events import DialOutcome

CAUSES: Mapping[str, tuple[DialOutcome, str]] = {
    "UNALLOCATED_NUMBER": (DialOutcome.INVALID, "no such number"),
    "NO_ROUTE_TRANSIT_NET": (DialOutcome.INVALID, "no route to the number"),
    "NO_ROUTE_DESTINATION": (DialOutcome.INVALID, "no route to the number"),
    "INVALID_NUMBER_FORMAT": (DialOutcome.INVALID, "the number is malformed"),
    "NUMBER_CHANGED": (DialOutcome.INVALID, "the number has changed"),
    "USER_NOT_REGISTERED": (DialOutcome.INVALID, "the phone is not registered"),
    "SUBSCRIBER_ABSENT": (DialOutcome.INVALID, "the phone is not registered, or not known"),
    "INVALID_URL": (DialOutcome.INVALID, "FreeSWITCH can't read the dial string"),
    "INVALID_GATEWAY": (DialOutcome.INVALID, "FreeSWITCH has no such gateway"),
    "INVALID_PROFILE": (DialOutcome.INVALID, "FreeSWITCH has no such profile"),
    "CHAN_NOT_IMPLEMENTED": (DialOutcome.INVALID, "FreeSWITCH has no such kind of endpoint"),
    "USER_BUSY": (DialOutcome.BUSY, "busy"),
    "NO_USER_RESPONSE": (DialOutcome.NO_ANSWER, "the phone did not react"),
    "NO_ANSWER": (DialOutcome.NO_ANSWER, "nobody answered"),
    "ALLOTTED_TIMEOUT": (DialOutcome.NO_ANSWER, "nobody answered"),
    "PROGRESS_TIMEOUT": (DialOutcome.NO_ANSWER, "the phone did not ring"),
    "ORIGINATOR_CANCEL": (DialOutcome.NO_ANSWER, "hung up before anybody answered"),
    "NORMAL_CLEARING": (DialOutcome.NO_ANSWER, "hung up before anybody answered"),
    "LOSE_RACE": (DialOutcome.NO_ANSWER, "answered elsewhere"),
    "PICKED_OFF": (DialOutcome.NO_ANSWER, "answered elsewhere"),
    "CALL_REJECTED": (DialOutcome.REJECTED, "the resident rejected the call"),
    "USER_CHALLENGE": (DialOutcome.FAILED, "the other side wants a password"),
    "DESTINATION_OUT_OF_ORDER": (DialOutcome.CONGESTION, "the phone can't be reached now"),
    "NORMAL_CIRCUIT_CONGESTION": (DialOutcome.CONGESTION, "congestion"),
    "NETWORK_OUT_OF_ORDER": (DialOutcome.CONGESTION, "the network is out of order"),
    "NORMAL_TEMPORARY_FAILURE": (DialOutcome.CONGESTION, "a temporary failure"),
    "SWITCH_CONGESTION": (DialOutcome.CONGESTION, "FreeSWITCH is overloaded"),
    "REQUESTED_CHAN_UNAVAIL": (DialOutcome.CONGESTION, "no channel is available"),
    "GATEWAY_DOWN": (DialOutcome.CONGESTION, "the gateway is down"),
    "RECOVERY_ON_TIMER_EXPIRE": (DialOutcome.CONGESTION, "the phone did not react in time"),
}


def result_of(cause: str) -> DialResult:
    """How an attempt ended, by the cause that ``originate`` answered."""
    cause = cause.strip()
    outcome, meaning = CAUSES.get(cause, (DialOutcome.FAILED, "the call failed"))
    return DialResult(outcome, f"{meaning} ({cause[:60] or 'no cause'})")


def stream_result(event: Event) -> DialResult | None:
    """What an event of an answered channel, whose stream was started, says of the attempt; None: nothing."""
    what = event.name.rpartition("::")[2] if "::" in event.name else event.name
    if what == "connect":
        return DialResult(None)
    if what in ("error", "connect_failed", "disconnect"):
        return DialResult(
            DialOutcome.FAILED,
            "the phone was answered, and its stream was not taken: does dialer.stream_url lead to the port "
            "for streams, and is the token right?",
        )
    if what == "CHANNEL_HANGUP":
        return DialResult(DialOutcome.FAILED, "the phone was answered, and hung up before it was connected")
    return None


__all__ = ["CAUSES", "result_of", "stream_result"]
