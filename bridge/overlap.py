"""A caller makes a sound while we speak: a word along the way ("ahã"), or the beginning of a turn?

Nobody can tell at its beginning. So we pause at once, as for any barge-in, and keep what we were saying:

    paused      it goes on for longer than a backchannel does           → give way
                it is over sooner                                       → resume
    resumed     the provider wrote down words that are a turn           → give way
                only backchannels, or the provider heard no turn        → over

Measured with the local VAD: "sim", "não", "ahã", "hum", "uhum", "tá", "ok", "certo", "alô?", "quem é?" last
256 to 512 ms, the shortest sentences ("tá bom", "boa noite") 640 and more; the longest pause within any of
the recorded sentences is 160 ms.

No I/O and no clock: times come in, in seconds on any one clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

SPEECH_MS = 600
"""Speech that is longer is no backchannel."""
QUIET_MS = 224
"""Quiet that is longer ends it; the VAD's own hang-over would take twice as long."""
PAUSE_S = 1.2
"""A pause is never longer: the caller's audio stopped coming."""
AGAIN_S = 1.0
"""Who speaks again so soon after we went on wants the turn."""
UNHEARD_S = 1.0
"""After so long the provider begins no turn any more for what was said in the pause."""
WORDS_S = 4.0
"""So long the words of a turn are waited for; without them it is taken for one that wants its answer."""

ANSWER_S = 2.0
"""A backchannel so shortly before the end of a question is its answer."""


class Verdict(StrEnum):
    """What is to be done now."""

    WAIT = "wait"
    RESUME = "resume"
    GIVE_WAY = "give_way"
    OVER = "over"
    """It was nothing, or backchannels alone."""


class Overlap:
    """What is known of one overlap. The leg asks :meth:`judge` on every tick."""

    def __init__(self, began: float, turns: Iterable[str]) -> None:
        """
        Args:
            began: when the caller was heard to begin.
            turns: the provider's turns that are open: this may be what they have heard.
        """
        self.began = began
        self._turns = set(turns)
        self._resumed: float | None = None
        self._changed = began
        self._known = False
        """The words are known, and were backchannels."""

    @property
    def paused(self) -> bool:
        """We are silent and have not decided."""
        return self._resumed is None

    def again(self, began: float, now: float) -> bool:
        """The caller is heard anew. True: we pause once more; False: they want the turn."""
        if self._resumed is None or now - self._resumed < AGAIN_S:
            return False
        self.began, self._resumed, self._known = began, None, False
        return True

    def turn_began(self, item: str, now: float) -> None:
        """The provider heard a turn begin."""
        self._turns.add(item)
        self._changed = now

    def concerns(self, item: str) -> bool:
        """Whether this turn of the provider's may be what was said in the pause."""
        return item in self._turns

    def backchannel(self, item: str, now: float) -> None:
        """The words of this turn are known, and leave us the turn."""
        self._turns.discard(item)
        self._changed = now
        self._known = True

    def answers(self, now: float) -> bool:
        """Whether it answers a question of ours that is over now: it was said over its last words."""
        return self._resumed is not None and now - self._resumed <= ANSWER_S

    def judge(self, now: float, *, speech_ms: int, quiet_ms: int) -> Verdict:
        """What is to be done.

        Args:
            now: the time.
            speech_ms: how long the caller has spoken; 0: they don't.
            quiet_ms: for how long they have been quiet within that.
        """
        if self._resumed is not None:
            return self._judge_words(now)
        if speech_ms > SPEECH_MS or now - self.began > PAUSE_S:
            return Verdict.GIVE_WAY
        if not speech_ms or quiet_ms >= QUIET_MS:
            self._resumed = self._changed = now
            return Verdict.RESUME
        return Verdict.WAIT

    def _judge_words(self, now: float) -> Verdict:
        waited = now - self._changed
        if self._turns:
            return Verdict.GIVE_WAY if waited > WORDS_S else Verdict.WAIT
        return Verdict.OVER if self._known or waited > UNHEARD_S else Verdict.WAIT
