"""The sequencer asks for one response at a time, forgets nothing that is owed, and asks for nothing twice."""

from __future__ import annotations

import pytest

from providers.base import Speak
from providers.sequencer import Cancel, Create, Dropped, Output, Patience, Sequencer, Waiting


def created(sequencer: Sequencer, actions: list[object], response: str) -> Create:
    """The one create among the actions, announced by the server as ``response``."""
    creates = [a for a in actions if isinstance(a, Create)]
    assert len(creates) == 1, actions
    assert sequencer.response_created(response, creates[0].tag) == []
    return creates[0]


def asks(actions: object) -> bool:
    return any(isinstance(a, Create) for a in list(actions))  # type: ignore[call-overload]


@pytest.fixture
def sequencer() -> Sequencer:
    return Sequencer()


def test_one_response_at_a_time_and_exact_words_before_replies(sequencer: Sequencer) -> None:
    first = created(sequencer, [*sequencer.turn_ended()], "r1")
    assert first.exact is None and first.receipts == ()
    assert sequencer.speak_about("about") == []
    assert sequencer.turn_ended() == []
    assert sequencer.say_exactly("one", "Um.") == []
    assert sequencer.say_exactly("two", "Dois.") == []
    one = created(sequencer, [*sequencer.response_done("r1")], "r2")
    two = created(sequencer, [*sequencer.response_done("r2")], "r3")
    assert (one.exact, two.exact) == ("Um.", "Dois.")
    rest = created(sequencer, [*sequencer.response_done("r3")], "r4")
    assert rest.receipts == ("about",), "what is owed is satisfied by one reply"
    assert sequencer.response_done("r4") == []
    assert not sequencer.busy


def test_all_parallel_calls_are_answered_before_the_reply_to_them(sequencer: Sequencer) -> None:
    created(sequencer, [*sequencer.turn_ended()], "r1")
    assert sequencer.call_made("r1", "a") and sequencer.call_made("r1", "b")
    assert not sequencer.call_made("r1", "a"), "a call that is announced twice runs once"
    assert sequencer.answer("a", "now") == [], "not before its response is done"
    assert sequencer.response_done("r1") == [Output("a")]
    actions = sequencer.answer("b", "now")
    assert actions[0] == Output("b") and asks(actions[1:])
    assert sequencer.answer("b", "now") == [], "answered once"


@pytest.mark.parametrize(("speak", "expected"), [("now", True), ("idle", True), ("never", False)])
def test_an_answer_asks_for_a_reply_as_it_says(sequencer: Sequencer, speak: Speak, expected: bool) -> None:
    created(sequencer, [*sequencer.turn_ended()], "r1")
    sequencer.call_made("r1", "a")
    sequencer.response_done("r1")
    assert asks(sequencer.answer("a", speak)) is expected
    assert sequencer.busy is expected


def test_a_cancelled_call_is_neither_answered_nor_replied_to(sequencer: Sequencer) -> None:
    created(sequencer, [*sequencer.turn_ended()], "r1")
    sequencer.call_made("r1", "a")
    sequencer.call_cancelled("a")
    assert not sequencer.awaits("a")
    assert sequencer.answer("a", "now") == []
    assert sequencer.response_done("r1") == []
    assert not sequencer.busy


def test_a_turn_waits_for_an_open_call_but_not_for_ever(sequencer: Sequencer) -> None:
    created(sequencer, [*sequencer.turn_ended()], "r1")
    sequencer.call_made("r1", "slow")
    sequencer.response_done("r1")
    assert sequencer.turn_ended() == [], "the answer is about to come; one reply for both"
    waiting = sequencer.patience
    assert waiting is not None and waiting.kind is Waiting.TOOLS
    created(sequencer, [*sequencer.give_up(waiting)], "r2")
    sequencer.response_done("r2")
    assert asks(sequencer.answer("slow", "now"))


def test_exact_words_do_not_wait_for_a_tool(sequencer: Sequencer) -> None:
    created(sequencer, [*sequencer.turn_ended()], "r1")
    sequencer.call_made("r1", "slow")
    sequencer.response_done("r1")
    assert asks(sequencer.say_exactly("wait", "Um momento."))


def test_a_barge_in_cancels_once_and_keeps_what_has_not_begun(sequencer: Sequencer) -> None:
    created(sequencer, [*sequencer.turn_ended()], "r1")
    sequencer.say_exactly("keep", "O morador foi avisado.")
    assert sequencer.interrupt() == [Cancel("r1")]
    assert sequencer.interrupt() == []
    assert sequencer.response_done("r1") == [], "the caller is speaking"
    keep = created(sequencer, [*sequencer.turn_ended()], "r2")
    assert keep.exact == "O morador foi avisado."
    assert asks(sequencer.response_done("r2")), "and then the caller's turn is replied to"


def test_a_barge_in_on_nothing_but_noise_ends_by_itself(sequencer: Sequencer) -> None:
    created(sequencer, [*sequencer.turn_ended()], "r1")
    sequencer.speak_about("news")
    sequencer.interrupt()
    sequencer.response_done("r1")
    waiting = sequencer.patience
    assert waiting is not None and waiting.kind is Waiting.BARGE_IN
    assert asks(sequencer.give_up(waiting))
    assert sequencer.give_up(waiting) == [], "a wait that is over is over"


def test_replies_wait_while_the_caller_speaks_and_a_greeting_does_not(sequencer: Sequencer) -> None:
    sequencer.caller_speaks()
    assert sequencer.speak_about("news") == []
    assert asks(sequencer.say_exactly("greeting", "Boa tarde."))


def test_a_barge_in_before_the_server_announced_the_reply_cancels_it(sequencer: Sequencer) -> None:
    create = sequencer.turn_ended()[0]
    assert isinstance(create, Create)
    assert sequencer.interrupt() == [Cancel(None)]
    assert sequencer.response_created("r1", create.tag) == []
    assert sequencer.response_done("r1") == []


def test_a_cancel_that_overtook_its_create_is_repeated_once_it_has_a_name(sequencer: Sequencer) -> None:
    create = sequencer.turn_ended()[0]
    assert isinstance(create, Create)
    sequencer.interrupt()
    assert sequencer.cancel_refused() == []
    assert sequencer.response_created("r1", create.tag) == [Cancel("r1")]
    assert sequencer.busy


def test_busy_waits_for_a_done_and_asks_again(sequencer: Sequencer) -> None:
    create = sequencer.say_exactly("greeting", "Boa tarde.")[0]
    assert isinstance(create, Create)
    assert sequencer.create_refused(create.tag, busy=True) == []
    assert sequencer.busy
    again = sequencer.response_done("whose?")[0]
    assert isinstance(again, Create)
    assert (again.exact, again.receipts) == (create.exact, create.receipts) and again.tag != create.tag


def test_busy_that_is_out_of_date_asks_again_at_once(sequencer: Sequencer) -> None:
    create = sequencer.speak_about("news")[0]
    assert isinstance(create, Create)
    assert sequencer.response_done("whose?") == []
    again = sequencer.create_refused(create.tag, busy=True)
    assert len(again) == 1 and isinstance(again[0], Create) and again[0].receipts == ("news",)


def test_a_create_refused_for_good_is_reported_and_the_next_one_goes(sequencer: Sequencer) -> None:
    create = sequencer.say_exactly("bad", "?")[0]
    assert isinstance(create, Create)
    sequencer.speak_about("news")
    dropped, following = sequencer.create_refused(create.tag, busy=False)
    assert dropped == Dropped(create, cancelled=False)
    assert isinstance(following, Create) and following.receipts == ("news",)


def test_nothing_to_cancel_means_that_it_is_over(sequencer: Sequencer) -> None:
    created(sequencer, [*sequencer.turn_ended()], "r1")
    sequencer.interrupt()
    sequencer.turn_ended()
    assert asks(sequencer.cancel_refused())
    assert sequencer.response_done("r1") == [], "its late done is nobody's"


def test_with_auto_reply_off_a_turn_asks_for_nothing(sequencer: Sequencer) -> None:
    sequencer.auto_reply(False)
    assert sequencer.turn_ended() == []
    assert not sequencer.busy
    sequencer.auto_reply(True)
    assert sequencer.response_done("none") == []
    assert asks(sequencer.turn_ended())


def test_a_response_that_nobody_asked_for_is_waited_for(sequencer: Sequencer) -> None:
    sequencer.response_created("theirs", None)
    assert sequencer.say_exactly("greeting", "Boa tarde.") == []
    assert asks(sequencer.response_done("theirs"))


def test_an_unknown_wait_can_not_be_given_up(sequencer: Sequencer) -> None:
    sequencer.caller_speaks()
    sequencer.speak_about("news")
    assert sequencer.give_up(Patience(Waiting.SPEECH, 99)) == []


def test_the_end_of_the_turn_is_replied_to_at_once(sequencer: Sequencer) -> None:
    sequencer.caller_speaks()
    assert asks(sequencer.turn_ended())


def test_a_turn_in_doubt_is_replied_to_once_it_is_known_to_be_one(sequencer: Sequencer) -> None:
    sequencer.doubt_turn()
    sequencer.caller_speaks()
    assert sequencer.turn_ended() == []
    assert sequencer.busy, "it may be the model's turn"
    assert asks(sequencer.settle_turn(reply=True))


def test_a_word_along_the_way_gets_no_reply_and_holds_nothing_up(sequencer: Sequencer) -> None:
    created(sequencer, [*sequencer.turn_ended()], "r1")
    sequencer.doubt_turn()
    sequencer.caller_speaks()
    assert sequencer.turn_ended() == []
    assert sequencer.settle_turn(reply=False) == []
    assert sequencer.response_done("r1") == []
    assert not sequencer.busy
    assert asks(sequencer.turn_ended()), "the next one is a turn like any other"


def test_what_else_is_owed_does_not_wait_for_the_doubt(sequencer: Sequencer) -> None:
    sequencer.doubt_turn()
    assert asks(sequencer.say_exactly("goodbye", "Até logo."))


def test_a_barge_in_by_a_turn_that_has_ended_waits_for_no_further_end(sequencer: Sequencer) -> None:
    created(sequencer, [*sequencer.turn_ended()], "r1")
    sequencer.doubt_turn()
    sequencer.caller_speaks()
    sequencer.turn_ended()
    assert sequencer.interrupt() == [Cancel("r1")]
    assert sequencer.settle_turn(reply=True) == []
    assert sequencer.patience is None
    assert asks(sequencer.response_done("r1"))


def test_a_turn_that_ended_while_the_host_had_it_is_nobodys_afterwards(sequencer: Sequencer) -> None:
    sequencer.auto_reply(False)
    sequencer.doubt_turn()
    sequencer.turn_ended()
    sequencer.auto_reply(True)
    assert sequencer.settle_turn(reply=True) == []
    assert not sequencer.busy
