"""espeak-ng through ctypes: one Portuguese voice, text in, samples out. For a process of its own.

The library is native code with one global state a process, and one callback: a second binding takes both from
the first, and where that one is let go of, the next sentence jumps into freed memory. So nothing but
``espeak_process`` runs it: this module is what runs at the other end of its pipes
(``python -m providers.local.espeak VOICE``), with one binding a process.

Source of the interface: espeak-ng 1.52, ``src/include/espeak-ng/speak_lib.h``.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys
from typing import BinaryIO, Final

import espeakng_loader

_AUDIO_OUTPUT_SYNCHRONOUS: Final = 2
_INITIALIZE_DONT_EXIT: Final = 0x8000
_CHARS_UTF8: Final = 1
_RATE, _PITCH, _RANGE, _WORDGAP = 1, 3, 4, 7
_WORDS_PER_MINUTE: Final = 158
"""espeak's own 175 is hurried over a telephone; below 150 it drags."""
_PITCH_VALUE: Final = 42
_RANGE_VALUE: Final = 58
MAX_TEXT: Final = 4000
"""Characters of one call; longer is a caller's mistake."""

ANSWER: Final = struct.Struct(">cI")
"""What comes before an answer: :data:`OK` or :data:`REFUSED`, and how many bytes follow."""
OK: Final = b"+"
REFUSED: Final = b"-"

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class EspeakError(Exception):
    """espeak-ng can't be loaded, or refused the voice or the text."""


class Espeak:
    """The library, initialised. One a process, used from one thread."""

    def __init__(self, voice: str) -> None:
        try:
            self._library = ctypes.CDLL(espeakng_loader.get_library_path())
            data = espeakng_loader.get_data_path()
        except (OSError, RuntimeError) as error:
            raise EspeakError(f"espeak-ng can't be loaded: {error}") from error
        self._declare()
        self._samples: list[bytes] = []
        # Kept as an attribute: the library holds the pointer, and Python would free the thunk.
        self._callback = _Callback(self._collect)
        rate = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, data.encode(), _INITIALIZE_DONT_EXIT
        )
        if rate <= 0:
            raise EspeakError(f"espeak-ng refused its data folder {data} (code {rate})")
        self.rate: int = rate
        """Samples per second of what :meth:`synthesize` gives: 22050."""
        self._library.espeak_SetSynthCallback(self._callback)
        if (code := self._library.espeak_SetVoiceByName(voice.encode())) != 0:
            raise EspeakError(f"espeak-ng has no voice {voice!r} (code {code})")
        for parameter, value in ((_PITCH, _PITCH_VALUE), (_RANGE, _RANGE_VALUE), (_WORDGAP, 0)):
            self._library.espeak_SetParameter(parameter, value, 0)

    def _declare(self) -> None:
        functions = self._library
        functions.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        functions.espeak_SetSynthCallback.argtypes = [_Callback]
        functions.espeak_SetSynthCallback.restype = None
        functions.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        functions.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
        functions.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        functions.espeak_TextToPhonemes.argtypes = [
            ctypes.POINTER(ctypes.c_char_p),
            ctypes.c_int,
            ctypes.c_int,
        ]
        functions.espeak_TextToPhonemes.restype = ctypes.c_char_p

    def _collect(self, wave: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        if wave and count > 0:
            self._samples.append(ctypes.string_at(wave, 2 * count))
        return 0

    def synthesize(self, text: str, speed: float = 1.0) -> bytes:
        """The text as s16 mono at :attr:`rate`. Blocking, some milliseconds a sentence.

        Raises:
            EspeakError: the library refused, or the text is longer than :data:`MAX_TEXT`.
        """
        if len(text) > MAX_TEXT:
            raise EspeakError(f"a text of {len(text)} characters is too long to be said at once")
        # The library reads C strings: a NUL would end the text early.
        data = text.replace("\0", " ").encode() + b"\0"
        self._samples.clear()
        self._library.espeak_SetParameter(_RATE, round(_WORDS_PER_MINUTE * speed), 0)
        code = self._library.espeak_Synth(data, len(data), 0, 0, 0, _CHARS_UTF8, None, None)
        pcm = b"".join(self._samples)
        self._samples.clear()
        if code != 0:
            raise EspeakError(f"espeak-ng failed (code {code})")
        return pcm

    def phonemes(self, text: str) -> str:
        """How the text will be pronounced, in IPA."""
        pointer = ctypes.c_char_p(text.replace("\0", " ").encode())
        found: list[str] = []
        while pointer.value:
            piece = self._library.espeak_TextToPhonemes(ctypes.byref(pointer), _CHARS_UTF8, 0x02)
            found.append(piece.decode())
        return " ".join(found)


def serve(voice: str, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer one JSON line after the other until the requests end.

    The first answer is given unasked: the sample rate in decimals, or why the library can't be used. A
    request is ``{"say": text, "speed": factor}``, answered with s16 samples, or ``{"phonemes": text}``,
    answered with UTF-8.
    """

    def answer(kind: bytes, content: bytes) -> None:
        answers.write(ANSWER.pack(kind, len(content)) + content)
        answers.flush()

    try:
        espeak = Espeak(voice)
    except EspeakError as error:
        answer(REFUSED, str(error).encode())
        return
    answer(OK, str(espeak.rate).encode())
    for line in requests:
        request = json.loads(line)
        try:
            if "phonemes" in request:
                answer(OK, espeak.phonemes(request["phonemes"]).encode())
            else:
                answer(OK, espeak.synthesize(request["say"], request["speed"]))
        except EspeakError as error:
            answer(REFUSED, str(error).encode())


if __name__ == "__main__":
    serve(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)
