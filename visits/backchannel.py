"""Words along the way: what a listener says to show that they listen, and not to take the turn.

The list is short on purpose: what is not in it is a turn. A refusal never is: "não" is in none of the lists.
"""

from __future__ import annotations

from typing import Final

from visits.words import words

# fmt: off
SOUNDS: Final = frozenset({
    "a", "aa", "ah", "aha", "aham", "ahan", "ahn", "an", "ha", "ham", "han", "hm", "hmm", "hmmm", "hum",
    "humhum", "huhum", "hunhum", "mhm", "mm", "mmm", "uh", "uhm", "uhn", "uhum", "um",
})
"""Folded, as recognisers write what is no word."""
AGREEMENT: Final = frozenset({
    "sim", "ta", "bom", "tudo", "bem", "ok", "okay", "certo", "isso", "mesmo", "e", "claro", "beleza",
    "entendi", "exato", "perfeito", "legal", "joia",
})
# fmt: on
LONGEST: Final = 4
"""Words; who says more says something."""


def is_backchannel(text: str, *, sounds_only: bool = False) -> bool:
    """Whether these words, said while the other talks, leave the other the turn.

    Args:
        text: what the recogniser wrote; nothing at all is a backchannel too (something was heard, no word).
        sounds_only: agreement is an answer here, and so may be what was not understood.
    """
    said = [word.text for word in words(text)]
    if not said:
        return not sounds_only
    known = SOUNDS if sounds_only else SOUNDS | AGREEMENT
    return len(said) <= LONGEST and known.issuperset(said)
