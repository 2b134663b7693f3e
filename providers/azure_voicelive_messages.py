"""Azure VoiceLive's words for OpenAI's Realtime protocol. No state.

It kept the names of the protocol's preview (``response.audio.delta``), has a flat session, and adds Azure's
own noise suppression, echo cancellation, turn detection and voices. Field names are those of
azure-ai-voicelive's ``models`` (1.3.1); ``model`` belongs to the address and is refused in a session.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from audio.frames import TELEPHONE_RATE
from providers.base import Line, PastCall, SessionConfig, TurnDetection
from providers.formats import PCM8, PCM16, PCM24, PCMA, PCMU, AudioFormat, FormatName, UnknownFormat
from providers.openai_messages import Delta, Paid, delta_decoder, exact_instructions, function_tool, past

FORMATS: Final[Mapping[FormatName, AudioFormat]] = {one.name: one for one in (PCM8, PCM16, PCM24, PCMU, PCMA)}
"""By their names in settings."""

_INPUTS: Final[Mapping[tuple[str, int], AudioFormat]] = {
    ("pcm16", 8000): PCM8,
    ("pcm16", 16000): PCM16,
    ("pcm16", 24000): PCM24,
    ("g711_ulaw", TELEPHONE_RATE): PCMU,
    ("g711_alaw", TELEPHONE_RATE): PCMA,
}
"""By ``input_audio_format`` and ``input_audio_sampling_rate``."""

_OUTPUTS: Final[Mapping[str, AudioFormat]] = {
    "pcm16_8000hz": PCM8,
    "pcm16_16000hz": PCM16,
    "pcm16": PCM24,
    "g711_ulaw": PCMU,
    "g711_alaw": PCMA,
}
"""By ``output_audio_format``."""

BRAZILIAN: Final = ("Francisca", "Brenda", "Antonio", "Donato", "Fabio")
"""Neural voices of pt-BR that may be called by their first name alone."""
OPENAI_VOICES: Final = frozenset(
    {"alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"}
)
"""Spoken by the model itself, and by realtime models alone."""

INTERIM_MS: Final = 2000
"""After so long without a reply an interim text is said; the vendor's default."""
LOCALES: Final[Mapping[str, str]] = {"pt": "pt-BR", "en": "en-US", "es": "es-ES"}


class AudioDelta(Delta, tag_field="type", tag="response.audio.delta", frozen=True, gc=False):
    """``response.audio.delta``: what is used of it."""


_decode_delta = delta_decoder(AudioDelta)


@dataclass(frozen=True, slots=True)
class VoiceLiveWire:
    """See :class:`providers.openai_messages.Dialect`.

    Attributes:
        model: of the address; it decides who transcribes.
        voice: a voice's full name, a first name of :data:`BRAZILIAN`, or one of :data:`OPENAI_VOICES`.
        interim_texts: one of them is said where a reply takes long. Not with realtime models.
    """

    model: str
    voice: str
    audio: AudioFormat = PCM8
    noise_suppression: bool = True
    echo_cancellation: bool = True
    interim_texts: tuple[str, ...] = ()
    patience_s: ClassVar[None] = None

    @property
    def exact_speech(self) -> bool:
        """Azure's own voices read a text out; the model's voices are the model, which says what it likes."""
        return self.voice not in OPENAI_VOICES

    @property
    def paid(self) -> Paid:
        """Its server tells no usage of transcriptions: they are within the model's tier."""
        return Paid("azure-voicelive", self.model, "")

    def session_update(self, config: SessionConfig) -> dict[str, Any]:
        """The whole configuration. Turns are detected there, but responses are asked for and cancelled here.

        Nor does the server shorten what it remembers: it can't know what was heard.
        """
        locale = LOCALES.get(config.language, config.language)
        session: dict[str, Any] = {
            "modalities": ["text", "audio"],
            "instructions": config.instructions,
            "voice": voice(self.voice),
            "input_audio_format": next(name for (name, _), one in _INPUTS.items() if one is self.audio),
            "input_audio_sampling_rate": self.audio.rate,
            "output_audio_format": next(name for name, one in _OUTPUTS.items() if one is self.audio),
            "input_audio_transcription": self._transcription(config, locale),
            "turn_detection": _turn_detection(config.turn_detection, locale),
            "tools": [function_tool(tool) for tool in config.tools],
            "tool_choice": "auto",
            "max_response_output_tokens": max(1, min(4096, config.max_output_tokens)),
        }
        if self.noise_suppression:
            session["input_audio_noise_reduction"] = {"type": "azure_deep_noise_suppression"}
        if self.echo_cancellation:
            session["input_audio_echo_cancellation"] = {"type": "server_echo_cancellation"}
        if config.temperature is not None:
            session["temperature"] = config.temperature
        if self.interim_texts:
            session["interim_response"] = {
                "type": "static_interim_response",
                "triggers": ["latency", "tool"],
                "latency_threshold_ms": INTERIM_MS,
                "texts": list(self.interim_texts),
            }
        return {"type": "session.update", "event_id": "configure_1", "session": session}

    def _transcription(self, config: SessionConfig, locale: str) -> dict[str, Any]:
        """Realtime models are transcribed by OpenAI's recognisers alone, the others by Azure's."""
        if "realtime" in self.model:
            return {"model": "gpt-4o-transcribe", "language": config.language}
        found: dict[str, Any] = {"model": "azure-speech", "language": locale}
        if phrases := [one.strip() for one in re.split(r"[,.;\n]", config.transcription_prompt)]:
            found["phrase_list"] = [one for one in phrases if one]
        return found

    def confirmed_formats(self, session: Mapping[str, Any]) -> tuple[AudioFormat, AudioFormat]:
        """The formats of the caller's and of the model's audio, as ``session.updated`` has them.

        Raises:
            UnknownFormat: one of them is not confirmed, or nobody here can read it.
        """
        spoken, rate = session.get("input_audio_format"), session.get("input_audio_sampling_rate")
        heard = session.get("output_audio_format")
        if not spoken or not heard:
            side = "output" if spoken else "input"
            raise UnknownFormat(f"the provider did not confirm the {side} audio format")
        usual = TELEPHONE_RATE if str(spoken).startswith("g711") else PCM24.rate
        found = _INPUTS.get((spoken, rate or usual))
        if found is None:
            raise UnknownFormat(
                f"the input audio format that the provider confirmed: found {spoken} at {rate} Hz; "
                f"allowed are {', '.join(f'{name} at {hz} Hz' for name, hz in _INPUTS)}"
            )
        if heard not in _OUTPUTS:
            raise UnknownFormat(
                f"the output audio format that the provider confirmed: found {heard}; "
                f"allowed are {', '.join(_OUTPUTS)}"
            )
        return found, _OUTPUTS[heard]

    def response_create(
        self, tag: str, receipt: str | None, exact: str | None, language: str
    ) -> dict[str, Any]:
        """Ask for a response. Without ``cancel_previous: false`` it would cut off whatever is being said."""
        metadata = {"create": tag}
        if receipt is not None:
            metadata["receipt"] = receipt
        response: dict[str, Any] = {"metadata": metadata, "cancel_previous": False}
        if exact is not None and self.exact_speech:
            content = [{"type": "text", "text": exact}]
            response["pre_generated_assistant_message"] = {
                "type": "message",
                "role": "assistant",
                "content": content,
            }
        elif exact is not None:
            response |= {"instructions": exact_instructions(exact, language), "tool_choice": "none"}
        return {"type": "response.create", "event_id": tag, "response": response}

    def past(self, line: Line | PastCall) -> list[dict[str, Any]]:
        """See :class:`providers.openai_messages.Dialect`."""
        return past(line, assistant="text")

    def decode_delta(self, frame: bytes) -> Delta | None:
        """See :class:`providers.openai_messages.Dialect`."""
        return _decode_delta(frame)


def voice(name: str) -> dict[str, Any]:
    """A voice as messages name it. Whether there is such a voice, the provider knows."""
    if name in OPENAI_VOICES:
        return {"type": "openai", "name": name}
    first = name.capitalize()
    return {"type": "azure-standard", "name": f"pt-BR-{first}Neural" if first in BRAZILIAN else name}


def _turn_detection(turns: TurnDetection, locale: str) -> dict[str, Any] | None:
    if turns.kind == "local":
        return None
    found: dict[str, Any] = {
        "type": "server_vad",
        "threshold": turns.threshold,
        "prefix_padding_ms": turns.prefix_padding_ms,
        "silence_duration_ms": turns.silence_duration_ms,
        "create_response": False,
        "interrupt_response": False,
        "auto_truncate": False,
    }
    if turns.kind != "server_vad":
        # "Hum" may be a resident's answer: no word is taken away.
        found |= {
            "type": "azure_semantic_vad_multilingual",
            "languages": [locale],
            "remove_filler_words": False,
        }
    return found


__all__ = ["BRAZILIAN", "FORMATS", "OPENAI_VOICES", "VoiceLiveWire", "voice"]
