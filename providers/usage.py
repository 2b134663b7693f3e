"""What providers say that they bill, read into :class:`providers.base.Usage`. No state.

Nothing here raises: a bill that can't be read costs nobody a call. What is missing or makes no sense is left
out of the sum or counted the dearer way, and the usage says that it is not complete.

Whatever a provider does not divide into text and sound counts as text, as the Gemini SDK's
``MediaModality`` says of what is unspecified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from providers.base import Purpose, Tokens, Usage

MOST_TOKENS = 10**9
"""More than any model can read or write in one reply."""
MOST_SECONDS = 10**6
_PURPOSES: Mapping[str, Purpose] = {
    "reply": "reply",
    "transcription": "transcription",
    "speech": "speech",
    "session": "session",
}


class _Reader:
    """Reads counts, and remembers whether one was not as it must be."""

    def __init__(self) -> None:
        self.complete = True

    def mapping(self, value: object) -> Mapping[str, Any]:
        """An object; none is an empty one."""
        if isinstance(value, Mapping):
            return value
        self.complete = self.complete and value is None
        return {}

    def count(self, where: Mapping[str, Any], name: str) -> int:
        """A number of tokens; 0 where it is not told."""
        value = where.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS:
            return value
        self.complete = self.complete and value is None
        return 0

    def part(self, of: int, claimed: int) -> int:
        """So many of the tokens; never more than there are."""
        self.complete = self.complete and claimed <= of
        return min(of, claimed)


def realtime_reply(provider: str, model: str, usage: object) -> Usage:
    """The usage of ``response.done`` (openai SDK, ``RealtimeResponseUsage``; VoiceLive's ``TokenUsage``).

    There cached tokens are among the input tokens, and reasoning among the output's.
    """
    read = _Reader()
    found = read.mapping(usage)
    heard = read.mapping(found.get("input_token_details"))
    said = read.mapping(found.get("output_token_details"))
    cached = read.mapping(heard.get("cached_tokens_details"))
    text, audio = read.count(heard, "text_tokens"), read.count(heard, "audio_tokens")
    image = read.count(heard, "image_tokens")
    text += _rest(read.count(found, "input_tokens"), text + audio + image)
    text_cached = read.part(text, read.count(cached, "text_tokens"))
    audio_cached = read.part(audio, read.count(cached, "audio_tokens"))
    text_out, audio_out = read.count(said, "text_tokens"), read.count(said, "audio_tokens")
    text_out += _rest(read.count(found, "output_tokens"), text_out + audio_out)
    undivided_cache = read.count(heard, "cached_tokens") > text_cached + audio_cached
    told = bool(heard) and bool(said) and not image and not undivided_cache
    tokens = Tokens(
        text_in=text - text_cached,
        text_cached=text_cached,
        text_out=text_out,
        audio_in=audio - audio_cached,
        audio_cached=audio_cached,
        audio_out=audio_out,
    )
    return Usage(provider, model, "reply", tokens, complete=read.complete and told)


def realtime_transcription(provider: str, model: str, usage: object) -> Usage:
    """The usage of ``…input_audio_transcription.completed``: by tokens, or by the audio's duration."""
    read = _Reader()
    found = read.mapping(usage)
    if found.get("type") == "duration":
        return timed(provider, model, "transcription", found.get("seconds"))
    details = read.mapping(found.get("input_token_details"))
    text, audio = read.count(details, "text_tokens"), read.count(details, "audio_tokens")
    heard = read.count(found, "input_tokens")
    if not details:  # what a recogniser reads is sound
        audio = heard
    text += _rest(heard, text + audio)
    tokens = Tokens(text_in=text, audio_in=audio, text_out=read.count(found, "output_tokens"))
    told = found.get("type") == "tokens" and bool(details)
    return Usage(provider, model, "transcription", tokens, complete=read.complete and told)


def timed(provider: str, model: str, purpose: Purpose, seconds: object) -> Usage:
    """What is billed by its seconds."""
    right = (
        isinstance(seconds, int | float)
        and not isinstance(seconds, bool)
        and 0 <= seconds <= MOST_SECONDS  # no NaN either
    )
    value = float(seconds) if right and isinstance(seconds, int | float) else 0.0
    return Usage(provider, model, purpose, seconds=value, complete=right)


def itemised(usage: object) -> Usage:
    """What our own model server says that somebody is to be paid: the fields of ``Usage`` themselves."""
    read = _Reader()
    found = read.mapping(usage)
    counts = read.mapping(found.get("tokens"))
    names = {name: found.get(name) for name in ("provider", "model")}
    purpose: Purpose | None = _PURPOSES.get(str(found.get("purpose")))
    paid = timed(str(names["provider"]), str(names["model"]), purpose or "reply", found.get("seconds"))
    told = paid.complete and purpose is not None and all(isinstance(name, str) for name in names.values())
    return replace(
        paid,
        tokens=Tokens(**{field.name: read.count(counts, field.name) for field in fields(Tokens)}),
        characters=read.count(found, "characters"),
        complete=told and read.complete and found.get("complete") is True,
    )


def text_reply(provider: str, model: str, usage: object) -> Usage:
    """The usage of a language model: of OpenAI's Responses (``input_tokens``) or Chat Completions
    (``prompt_tokens``) and whoever speaks the same."""
    read = _Reader()
    found = read.mapping(usage)
    chat = "prompt_tokens" in found
    into, out = ("prompt_tokens", "completion_tokens") if chat else ("input_tokens", "output_tokens")
    details = read.mapping(found.get(f"{into}_details"))
    text = read.count(found, into)
    cached = read.part(text, read.count(details, "cached_tokens"))
    tokens = Tokens(text_in=text - cached, text_cached=cached, text_out=read.count(found, out))
    told = into in found and out in found
    return Usage(provider, model, "reply", tokens, complete=read.complete and told)


def gemini_reply(provider: str, model: str, usage: object) -> Usage:
    """One ``usageMetadata`` of Gemini Live (google-genai SDK, ``UsageMetadata``).

    The SDK's types describe "the entire request", and sessions that were logged on the served models show
    counts of the turn, of which the prompt has all that was said before: they add up. Thoughts are written
    text that is billed, beside the response and not in it.
    """
    read = _Reader()
    found = read.mapping(usage)
    prompt = _modalities(read, found.get("promptTokensDetails"))
    tools = _modalities(read, found.get("toolUsePromptTokensDetails"))
    cached = _modalities(read, found.get("cacheTokensDetails"))
    said = _modalities(read, found.get("responseTokensDetails"))
    audio = prompt.audio + tools.audio
    heard = read.count(found, "promptTokenCount") + read.count(found, "toolUsePromptTokenCount")
    text = prompt.rest + tools.rest
    text += _rest(heard, text + audio)
    audio_cached = read.part(audio, cached.audio)
    unsaid = _rest(read.count(found, "cachedContentTokenCount"), cached.audio + cached.rest)
    text_cached = read.part(text, cached.rest + unsaid)
    text_out = said.rest
    text_out += _rest(read.count(found, "responseTokenCount"), text_out + said.audio)
    text_out += read.count(found, "thoughtsTokenCount")
    tokens = Tokens(
        text_in=text - text_cached,
        text_cached=text_cached,
        text_out=text_out,
        audio_in=audio - audio_cached,
        audio_cached=audio_cached,
        audio_out=said.audio,
    )
    told = bool(found.get("promptTokensDetails")) and bool(found.get("responseTokensDetails"))
    return Usage(provider, model, "reply", tokens, complete=read.complete and told)


class _Modalities:
    """Tokens by what they stand for: sound, or anything else."""

    def __init__(self) -> None:
        self.audio = self.rest = 0


def _modalities(read: _Reader, details: object) -> _Modalities:
    """Gemini's ``…TokensDetails``: a list of ``{modality, tokenCount}``."""
    found = _Modalities()
    if not isinstance(details, list):
        read.complete = read.complete and details is None
        return found
    for one in details:
        counted = read.mapping(one)
        if counted.get("modality") == "AUDIO":
            found.audio += read.count(counted, "tokenCount")
        else:
            found.rest += read.count(counted, "tokenCount")
    return found


def _rest(whole: int, told: int) -> int:
    """What of a sum is in none of its parts."""
    return max(0, whole - told)


__all__ = [
    "gemini_reply",
    "realtime_reply",
    "realtime_transcription",
    "text_reply",
    "timed",
]
