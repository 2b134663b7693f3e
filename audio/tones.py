"""The sounds that a telephone makes by itself: ring-back, busy, hold, and the keys (DTMF), as 8 kHz PCM.

Levels are of the sound while it sounds (RMS in dBov); edges are raised cosines, since a tone that is switched
on clicks. Ring-back and busy are the Brazilian ones (425 Hz: ITU-T E.180 supplement, Anatel).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from audio.frames import FULL_SCALE, TELEPHONE_RATE, saturated

CALL_PROGRESS_HZ: Final = 425.0
DTMF_LOW: Final = (697.0, 770.0, 852.0, 941.0)
DTMF_HIGH: Final = (1209.0, 1336.0, 1477.0, 1633.0)
DTMF_KEYS: Final = "123A456B789C*0#D"
"""The keypad by rows: key ``4 * r + c`` sounds ``DTMF_LOW[r]`` and ``DTMF_HIGH[c]``."""

_HOLD_NOTES: Final = ((392.00, 523.25), (440.00, 523.25), (392.00, 493.88), (349.23, 440.00))
"""Four soft dyads, G–C, A–C, G–B, F–A: enough to say that the line is alive, and no tune to tire of."""

Doubles = npt.NDArray[np.float64]


def ring_back(level_dbov: float = -24.0) -> bytes:
    """One period of the Brazilian ring-back tone, to be looped: 425 Hz, 1 s on, 4 s off; 5 s."""
    return _pcm(np.concatenate((_tone([CALL_PROGRESS_HZ], 1.0, level_dbov, edge_s=0.02), _pause(4.0))))


def busy(level_dbov: float = -24.0) -> bytes:
    """One period of the Brazilian busy tone, to be looped: 425 Hz, 250 ms on, 250 ms off."""
    return _pcm(np.concatenate((_tone([CALL_PROGRESS_HZ], 0.25, level_dbov, edge_s=0.01), _pause(0.25))))


def hold(level_dbov: float = -30.0) -> bytes:
    """A soft hold sound, to be looped: four slow two-note swells of 2 s each; 8 s."""
    return _pcm(np.concatenate([_tone(list(notes), 2.0, level_dbov, edge_s=0.9) for notes in _HOLD_NOTES]))


def dtmf(keys: str, tone_ms: int = 100, pause_ms: int = 100, level_dbov: float = -13.0) -> bytes:
    """``keys`` dialled one after another; each is followed by a pause.

    Raises:
        ValueError: a character that is on no keypad.
    """
    pieces: list[Doubles] = []
    for key in keys.upper():
        place = DTMF_KEYS.find(key)
        if place < 0:
            raise ValueError(f"{key!r} is no DTMF key; the keys are {DTMF_KEYS}")
        pair = [DTMF_LOW[place // 4], DTMF_HIGH[place % 4]]
        pieces += [_tone(pair, tone_ms / 1000, level_dbov, edge_s=0.002), _pause(pause_ms / 1000)]
    return _pcm(np.concatenate(pieces)) if pieces else b""


def _tone(frequencies: list[float], seconds: float, level_dbov: float, *, edge_s: float) -> Doubles:
    """Equal sines whose sum has ``level_dbov``, faded in and out over ``edge_s``; at the scale ±1."""
    at = np.arange(round(seconds * TELEPHONE_RATE)) / TELEPHONE_RATE
    sines: Doubles = np.sum([np.sin(2 * np.pi * hz * at) for hz in frequencies], axis=0)
    amplitude = 10 ** (level_dbov / 20) * np.sqrt(2 / len(frequencies))
    edge = round(edge_s * TELEPHONE_RATE)
    rise = 0.5 - 0.5 * np.cos(np.pi * np.arange(edge) / edge)
    sines[:edge] *= rise
    sines[len(sines) - edge :] *= rise[::-1]
    sines *= amplitude
    return sines


def _pause(seconds: float) -> Doubles:
    return np.zeros(round(seconds * TELEPHONE_RATE))


def _pcm(sound: Doubles) -> bytes:
    return saturated(sound * FULL_SCALE)
