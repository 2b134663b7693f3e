"""The playout queue, told as what must never happen to a reply on its way to the caller."""

from __future__ import annotations

import numpy as np
import pytest

from audio.frames import FRAME_BYTES, FRAME_SAMPLES, SILENCE, level_dbov, samples_of
from audio.playout import BED_BACK_FRAMES, REMEMBERED_ITEMS, Flushed, ItemLedger, Played, Playout


def tone(value: int, samples: int) -> bytes:
    """Audio that can be told apart: one value throughout."""
    return np.full(samples, value, dtype="<i2").tobytes()


def heard(playout: Playout, frames: int) -> list[int]:
    """The first sample of each of the next frames."""
    return [int(samples_of(playout.next_frame())[0]) for _ in range(frames)]


def playing(playout: Playout) -> str | None:
    """Asked anew each time, which a type checker believes of a call only."""
    return playout.playing


def test_silence_flows_from_the_first_frame_on() -> None:
    playout = Playout()
    assert [playout.next_frame() for _ in range(3)] == [SILENCE] * 3
    assert not playout.audible
    assert playing(playout) is None
    assert playout.underruns == 0


def test_an_item_is_given_out_bit_for_bit_and_reported_once() -> None:
    pcm = np.random.default_rng(1).integers(-9000, 9000, 4 * FRAME_SAMPLES).astype("<i2").tobytes()
    playout = Playout()
    for start in range(0, len(pcm), 246):
        playout.push("a", pcm[start : start + 246])
    playout.end("a")
    assert b"".join(playout.next_frame() for _ in range(4)) == pcm
    assert playout.take_finished() == [Played("a", 4 * FRAME_SAMPLES)]
    assert playout.take_finished() == []
    assert playout.ledger("a").complete


def test_the_tail_is_padded_but_only_its_true_samples_count() -> None:
    playout = Playout()
    playout.push("a", tone(5, 200))
    playout.end("a")
    playout.push("b", tone(6, FRAME_SAMPLES))
    playout.next_frame()
    assert playing(playout) == "a"
    assert samples_of(playout.next_frame()).tolist() == [5] * 40 + [0] * 120
    assert playout.audible
    assert playing(playout) is None
    assert playout.ledger("a").played == 200
    assert heard(playout, 1) == [6]


def test_a_later_item_never_overtakes_one_that_ran_dry() -> None:
    playout = Playout()
    playout.push("a", tone(1, FRAME_SAMPLES))
    playout.push("b", tone(2, FRAME_SAMPLES))
    playout.end("b")
    assert heard(playout, 1) == [1]
    for _ in range(3):
        playout.next_frame()
        assert not playout.audible
    assert playing(playout) == "a"
    assert (playout.underruns, playout.underrun_frames) == (1, 3)
    playout.push("a", tone(1, FRAME_SAMPLES))
    assert samples_of(playout.next_frame())[-1] == 1
    playout.next_frame()
    assert (playout.underruns, playout.underrun_frames) == (2, 4)
    assert playout.ledger("a").played == 2 * FRAME_SAMPLES, "silence must not count as played"
    playout.end("a")
    assert heard(playout, 1) == [2]
    assert playout.take_finished() == [Played("a", 2 * FRAME_SAMPLES), Played("b", FRAME_SAMPLES)]


def test_less_than_a_frame_waits_for_the_rest_of_it() -> None:
    playout = Playout()
    playout.push("a", tone(1, 100))
    assert playout.next_frame() == SILENCE
    assert playout.underruns == 0, "it has not begun yet"
    assert playout.pending_samples == 100
    playout.push("a", tone(1, 100))
    assert heard(playout, 1) == [1]
    assert playout.pending_samples == 40


def test_an_item_without_audio_blocks_until_it_ends_and_then_is_done_at_once() -> None:
    playout = Playout()
    playout.begin("a")
    playout.push("b", tone(2, FRAME_SAMPLES))
    assert heard(playout, 2) == [0, 0]
    playout.end("a")
    assert playout.take_finished() == [Played("a", 0)]
    assert not playout.ledger("a").complete, "nothing was heard of it"
    assert heard(playout, 1) == [2]


def test_the_end_of_an_item_that_never_began_is_its_whole_life() -> None:
    playout = Playout()
    playout.end("a")
    playout.end("a")
    assert playout.take_finished() == [Played("a", 0)]


def test_an_abandoned_item_is_played_out_but_never_finished_nor_complete() -> None:
    """A session died mid-word: what there is may be heard, but a briefing cut short is no briefing."""
    playout = Playout()
    playout.push("a", tone(1, 200))
    playout.push("b", tone(2, FRAME_SAMPLES))
    playout.abandon("a")
    assert heard(playout, 3) == [1, 1, 2]
    playout.end("a")
    assert playout.take_finished() == []
    account = playout.ledger("a")
    assert account == ItemLedger("a", 200, 200, False, False, False, abandoned=True)
    assert not account.complete
    playout.push("a", tone(1, 50))
    assert playout.late_samples == 50


def test_abandoning_what_is_awaited_lets_the_next_one_play() -> None:
    playout = Playout()
    playout.begin("a")
    playout.push("b", tone(2, FRAME_SAMPLES))
    playout.abandon("a")
    assert heard(playout, 1) == [2]
    assert playout.take_finished() == []


# -- barge-in ----------------------------------------------------------------------------------------------


def test_after_a_barge_in_nothing_of_the_reply_is_ever_heard_again() -> None:
    playout = Playout()
    playout.push("a", tone(1, 1000))
    playout.push("b", tone(2, 500))
    playout.begin("c")
    heard(playout, 2)
    assert playout.flush() == Flushed("a", 320, 1000, ("b", "c"))
    assert playout.pending_samples == 0
    assert playing(playout) is None
    for item in "abc":
        playout.push(item, tone(9, 400))
        playout.end(item)
    assert heard(playout, 5) == [0] * 5
    assert playout.take_finished() == []
    assert playout.late_samples == 1200
    assert playout.ledger("a") == ItemLedger("a", 1000, 320, False, True, False)
    playout.push("d", tone(4, FRAME_SAMPLES))
    assert heard(playout, 1) == [4]


def test_a_barge_in_on_an_empty_queue_is_nothing() -> None:
    playout = Playout()
    assert playout.flush() is None
    playout.push("a", tone(1, FRAME_SAMPLES))
    playout.end("a")
    playout.next_frame()
    assert playout.flush() is None, "it was heard whole"
    assert playout.take_finished() == [Played("a", FRAME_SAMPLES)]


def test_a_barge_in_while_the_model_is_late_still_cuts_the_item_off() -> None:
    playout = Playout()
    playout.push("a", tone(1, FRAME_SAMPLES))
    heard(playout, 3)
    assert playout.flush() == Flushed("a", FRAME_SAMPLES, FRAME_SAMPLES, ())
    playout.push("a", tone(1, FRAME_SAMPLES))
    assert heard(playout, 1) == [0]


def test_what_is_protected_survives_a_barge_in_in_its_order() -> None:
    playout = Playout()
    playout.push("a", tone(1, FRAME_SAMPLES * 2))
    playout.begin("b", protected=True)
    playout.push("b", tone(2, FRAME_SAMPLES * 2))
    playout.push("c", tone(3, FRAME_SAMPLES))
    playout.push("d", tone(4, FRAME_SAMPLES))
    playout.begin("d", protected=True)
    playout.end("b")
    heard(playout, 1)
    assert playout.flush() == Flushed("a", 160, 320, ("c",))
    assert heard(playout, 3) == [2, 2, 4]
    assert playout.flush() is None
    assert playout.flush(force=True) == Flushed("d", 160, 160, ())


def test_a_barge_in_behind_a_protected_item_drops_what_follows_it() -> None:
    playout = Playout()
    playout.begin("goodbye", protected=True)
    playout.push("goodbye", tone(1, FRAME_SAMPLES * 2))
    playout.push("b", tone(2, 500))
    heard(playout, 1)
    assert playout.flush() == Flushed("b", 0, 500, ())
    assert playing(playout) == "goodbye"
    assert heard(playout, 1) == [1]


def test_a_flush_that_frees_an_ended_item_reports_it() -> None:
    playout = Playout()
    playout.begin("a")
    playout.begin("b", protected=True)
    playout.end("b")
    assert playout.take_finished() == []
    playout.flush()
    assert playout.take_finished() == [Played("b", 0)]


def test_a_flushed_item_cannot_be_made_protected() -> None:
    playout = Playout()
    playout.push("a", tone(1, 400))
    playout.flush()
    playout.begin("a", protected=True)
    assert not playout.ledger("a").protected
    assert heard(playout, 1) == [0]


# -- the bed -----------------------------------------------------------------------------------------------


def test_the_bed_loops_without_a_seam_at_its_own_level() -> None:
    bed = np.arange(1, 251, dtype="<i2")
    playout = Playout()
    playout.set_bed(bed.tobytes())
    out = np.concatenate([samples_of(playout.next_frame()) for _ in range(10)])
    assert np.array_equal(out, np.resize(bed, 1600))
    assert not playout.audible
    assert playout.pending_samples == 0


@pytest.mark.parametrize("samples", [1, 7, 159, 160, 161])
def test_a_bed_of_any_length_fills_whole_frames(samples: int) -> None:
    bed = np.arange(1, samples + 1, dtype="<i2")
    playout = Playout()
    playout.set_bed(bed.tobytes())
    out = np.concatenate([samples_of(playout.next_frame()) for _ in range(5)])
    assert np.array_equal(out, np.resize(bed, 800))


def test_the_bed_is_under_the_items_and_comes_back_softly() -> None:
    playout = Playout()
    playout.set_bed(tone(1000, FRAME_SAMPLES))
    playout.begin("a")
    assert heard(playout, 1) == [1000], "nothing to say yet"
    playout.push("a", tone(1, FRAME_SAMPLES))
    assert heard(playout, 1) == [1]
    assert abs(heard(playout, 1)[0]) < 250, "no music within a sentence"
    playout.end("a")
    back = samples_of(playout.next_frame())
    assert back[0] == 0
    assert np.all(np.diff(back) >= 0)
    assert back[-1] > 950
    assert playout.next_frame() == tone(1000, FRAME_SAMPLES)


def test_a_bed_can_be_taken_away() -> None:
    playout = Playout()
    playout.set_bed(tone(1000, 80))
    playout.next_frame()
    playout.set_bed(None)
    assert playout.next_frame() == SILENCE
    playout.set_bed(b"")
    assert playout.next_frame() == SILENCE


def test_a_barge_in_leaves_the_bed() -> None:
    playout = Playout()
    playout.set_bed(tone(1000, 80))
    playout.push("a", tone(1, 1000))
    playout.next_frame()
    playout.flush()
    playout.next_frame()
    assert level_dbov(playout.next_frame()) == pytest.approx(-30.3, abs=0.1)


def test_the_bed_gives_way_to_who_speaks_and_waits_for_the_answer() -> None:
    playout = Playout()
    playout.set_bed(tone(1000, 80))
    assert heard(playout, 2) == [1000, 1000]
    playout.hush_bed(True)
    assert heard(playout, 3) == [0, 0, 0] and not playout.bed_heard
    playout.hush_bed(False)
    assert heard(playout, 10) == [0] * 10
    playout.push("answer", tone(1, FRAME_SAMPLES))
    playout.end("answer")
    assert heard(playout, 1) == [1]
    assert samples_of(playout.next_frame())[0] == 0, "softly"
    assert heard(playout, 1) == [1000] and playout.ledger("answer").complete


def test_where_nobody_answers_the_bed_comes_back_by_itself() -> None:
    playout = Playout()
    playout.set_bed(tone(1000, 80))
    playout.hush_bed(True)
    playout.next_frame()
    playout.hush_bed(False)
    assert heard(playout, BED_BACK_FRAMES) == [0] * BED_BACK_FRAMES
    playout.next_frame()
    assert heard(playout, 1) == [1000]


# -- errors and bounds -------------------------------------------------------------------------------------


def test_half_a_sample_is_an_error_and_nothing_of_it_is_taken() -> None:
    playout = Playout()
    with pytest.raises(ValueError, match="whole number"):
        playout.push("a", bytes(3))
    with pytest.raises(ValueError, match="whole number"):
        playout.set_bed(bytes(5))
    assert playout.ledger("a") == ItemLedger("a", 0, 0, False, False, False)
    playout.push("b", tone(2, FRAME_SAMPLES))
    assert heard(playout, 1) == [2], "the refused item must not stand in the way"


def test_of_an_unknown_item_nothing_was_played() -> None:
    account = Playout().ledger("never seen")
    assert (account.received, account.played, account.complete) == (0, 0, False)


def test_audio_after_the_end_is_dropped() -> None:
    playout = Playout()
    playout.push("a", tone(1, FRAME_SAMPLES))
    playout.end("a")
    playout.push("a", tone(1, FRAME_SAMPLES))
    assert heard(playout, 2) == [1, 0]
    assert playout.late_samples == FRAME_SAMPLES
    assert playout.take_finished() == [Played("a", FRAME_SAMPLES)]


def test_the_ledger_remembers_the_last_closed_items_and_no_more() -> None:
    playout = Playout()
    playout.push("open", tone(1, 10))
    for number in range(REMEMBERED_ITEMS + 50):
        playout.push(f"i{number}", tone(1, 10))
        playout.end(f"i{number}")
    assert playout.ledger("i0").received == 10, "what still waits is never forgotten"
    playout.end("open")
    for _ in range(REMEMBERED_ITEMS + 51):
        playout.next_frame()
    assert playout.ledger("open").received == 0
    assert playout.ledger(f"i{REMEMBERED_ITEMS + 49}").complete
    assert len(playout._accounts) == REMEMBERED_ITEMS
    assert len(playout.take_finished()) == REMEMBERED_ITEMS + 51


def test_a_long_reply_in_one_piece_is_cut_without_being_copied_each_time() -> None:
    """Ten minutes in one push: were the rest copied for every frame, this would move 144 GB."""
    playout = Playout()
    playout.push("a", bytes(FRAME_BYTES) * 30_000)
    playout.end("a")
    for _ in range(30_000):
        playout.next_frame()
    assert playout.take_finished() == [Played("a", 30_000 * FRAME_SAMPLES)]
