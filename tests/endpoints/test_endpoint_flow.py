"""The guards against floods and slow readers: who keeps to real time passes, who does not is told why."""

from __future__ import annotations

from bridge.endpoints.flow import FloodGuard, SlowReaderGuard


def test_real_time_passes_and_a_flood_does_not() -> None:
    guard = FloodGuard(3, 4)
    assert all(guard.takes(0.02, n * 0.02) for n in range(5000))
    assert guard.takes(11, 100.5), "a network that stalled delivers what it held at once"
    assert not guard.takes(11, 100.6)
    assert guard.complaint == (
        "found audio that came faster than 3 times real time for over 4 s; "
        "allowed is real time, and 12 s at once"
    )


def test_a_peer_that_reads_nothing_is_too_slow_at_the_limit() -> None:
    guard = SlowReaderGuard(4)
    assert all(guard.forgives() for _ in range(199))
    assert not guard.forgives(), "200 frames are 4 s"
    assert guard.complaint == "found 200 frames that the peer did not read; allowed are 4 s of them"


def test_a_peer_that_loses_a_fifth_passes_and_one_that_loses_more_does_not() -> None:
    def after(sent_per_dropped: int) -> bool:
        guard = SlowReaderGuard(4)
        for _ in range(5000):
            if not guard.forgives():
                return False
            for _ in range(sent_per_dropped):
                guard.sent()
        return True

    assert after(4)
    assert not after(3)


def test_frames_that_went_out_are_no_credit_for_later() -> None:
    guard = SlowReaderGuard(4)
    for _ in range(10_000):
        guard.sent()
    assert all(guard.forgives() for _ in range(199))
    assert not guard.forgives()
