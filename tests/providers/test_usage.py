"""What providers bill is read as the SDKs' types mean it; whatever else comes is never an error."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import gemini_messages, openai_live_messages
from providers.base import Tokens, Usage
from providers.usage import (
    MOST_SECONDS,
    MOST_TOKENS,
    gemini_reply,
    itemised,
    realtime_reply,
    realtime_transcription,
    text_reply,
    timed,
)

COUNTS = st.integers(0, 100_000)


def test_a_realtime_reply() -> None:
    usage = {
        "total_tokens": 253,
        "input_tokens": 132,
        "output_tokens": 121,
        "input_token_details": {
            "text_tokens": 119,
            "audio_tokens": 13,
            "image_tokens": 0,
            "cached_tokens": 64,
            "cached_tokens_details": {"text_tokens": 60, "audio_tokens": 4, "image_tokens": 0},
        },
        "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
    }
    tokens = Tokens(59, 60, 30, 9, 4, 91)
    assert realtime_reply("openai", "gpt-realtime-2.1", usage) == Usage(
        "openai", "gpt-realtime-2.1", "reply", tokens
    )


def test_a_transcription_by_time_and_by_tokens() -> None:
    by_time = {"type": "duration", "seconds": 2.5}
    assert realtime_transcription("openai", "gpt-transcribe", by_time) == Usage(
        "openai", "gpt-transcribe", "transcription", seconds=2.5
    )
    details = {"audio_tokens": 14, "text_tokens": 0}
    by_tokens = {
        "type": "tokens",
        "input_tokens": 14,
        "output_tokens": 45,
        "total_tokens": 59,
        "input_token_details": details,
    }
    assert realtime_transcription("openai", "gpt-4o-transcribe", by_tokens) == Usage(
        "openai", "gpt-4o-transcribe", "transcription", Tokens(audio_in=14, text_out=45)
    )


def test_a_gemini_turn_with_thoughts_and_tokens_without_a_modality() -> None:
    # As a session with gemini-3.8-live was logged: the details lack 25 tokens of the prompt.
    usage = {
        "promptTokenCount": 522,
        "responseTokenCount": 42,
        "totalTokenCount": 564,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 332},
            {"modality": "AUDIO", "tokenCount": 165},
        ],
        "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 42}],
        "thoughtsTokenCount": 136,
    }
    assert gemini_reply("gemini", "gemini-3.8-live", usage) == Usage(
        "gemini",
        "gemini-3.8-live",
        "reply",
        Tokens(text_in=357, text_out=136, audio_in=165, audio_out=42),
    )


def test_gemini_s_cache_is_taken_out_of_the_prompt() -> None:
    usage = {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 50,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 60},
            {"modality": "AUDIO", "tokenCount": 40},
        ],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 10}],
        "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 7}],
    }
    tokens = gemini_reply("gemini", "m", usage).tokens
    assert tokens == Tokens(text_in=20, text_cached=40, audio_in=30, audio_cached=10, audio_out=7)


def test_a_language_model_s_reply() -> None:
    responses = {
        "input_tokens": 420,
        "input_tokens_details": {"cached_tokens": 400},
        "output_tokens": 30,
    }
    chat = {
        "prompt_tokens": 420,
        "prompt_tokens_details": {"cached_tokens": 400},
        "completion_tokens": 30,
    }
    expected = Usage("openai", "m", "reply", Tokens(text_in=20, text_cached=400, text_out=30))
    assert text_reply("openai", "m", responses) == text_reply("openai", "m", chat) == expected


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": 10, "output_tokens": 20}, [], "30", 30])
def test_what_is_not_divided_is_counted_and_said_to_be_incomplete(usage: object) -> None:
    found = realtime_reply("openai", "m", usage)
    assert not found.complete
    assert found.tokens == (
        Tokens(text_in=10, text_out=20) if isinstance(usage, dict) and usage else Tokens()
    )


@pytest.mark.parametrize("seconds", [None, True, -1, "3", float("nan"), float("inf"), MOST_SECONDS + 1])
def test_a_time_that_is_none_is_not_billed_and_said(seconds: object) -> None:
    assert timed("p", "m", "session", seconds) == Usage("p", "m", "session", complete=False)


def test_our_own_model_servers_items_are_what_it_was_told() -> None:
    for usage in (
        Usage("groq", "llama", "reply", Tokens(1, 2, 3), complete=False),
        Usage("deepgram", "nova-3", "transcription", seconds=2.5),
        Usage("openai", "gpt-4o-mini-tts", "speech", characters=12),
    ):
        assert itemised(json.loads(json.dumps(asdict(usage)))) == usage
    assert not itemised({"provider": "groq", "model": "llama", "purpose": "x", "complete": True}).complete
    assert not itemised(None).complete


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_each_token_of_a_reply_is_counted_once(
    text: int, audio: int, text_cached: int, audio_cached: int, text_out: int, audio_out: int
) -> None:
    text_cached, audio_cached = min(text, text_cached), min(audio, audio_cached)
    usage = {
        "input_tokens": text + audio,
        "output_tokens": text_out + audio_out,
        "input_token_details": {
            "text_tokens": text,
            "audio_tokens": audio,
            "cached_tokens": text_cached + audio_cached,
            "cached_tokens_details": {"text_tokens": text_cached, "audio_tokens": audio_cached},
        },
        "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
    }
    found = realtime_reply("openai", "m", usage)
    tokens = found.tokens
    assert found.complete
    assert tokens.text_in + tokens.text_cached == text
    assert tokens.audio_in + tokens.audio_cached == audio
    assert (tokens.text_cached, tokens.audio_cached) == (text_cached, audio_cached)
    assert (tokens.text_out, tokens.audio_out) == (text_out, audio_out)


NAMES = st.sampled_from(
    [
        "type",
        "seconds",
        "input_tokens",
        "output_tokens",
        "total_tokens",
        "prompt_tokens",
        "completion_tokens",
        "input_token_details",
        "output_token_details",
        "cached_tokens",
        "cached_tokens_details",
        "text_tokens",
        "audio_tokens",
        "promptTokenCount",
        "promptTokensDetails",
        "cacheTokensDetails",
        "responseTokensDetails",
        "thoughtsTokenCount",
        "modality",
        "tokenCount",
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["duration", "tokens", "AUDIO", "TEXT", "x"])
)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=8),
    max_leaves=25,
)


@given(ANYTHING | st.dictionaries(NAMES, ANYTHING, max_size=8))
def test_no_usage_is_an_error_or_less_than_nothing(usage: Any) -> None:
    reads = (realtime_reply, realtime_transcription, gemini_reply, text_reply)
    for found in (*(read("p", "m", usage) for read in reads), itemised(usage)):
        tokens = found.tokens
        counts = (
            tokens.text_in,
            tokens.text_cached,
            tokens.text_out,
            tokens.audio_in,
            tokens.audio_cached,
            tokens.audio_out,
        )
        assert all(0 <= count <= 20 * MOST_TOKENS for count in counts)
        assert 0 <= found.seconds <= MOST_SECONDS


@pytest.mark.parametrize("usage", [None, [], "much", {"seconds": "many"}, {"promptTokenCount": {}}])
def test_an_odd_bill_ends_no_message(usage: Any) -> None:
    gemini = gemini_messages.decode(json.dumps({"usageMetadata": usage}).encode())
    assert not gemini_reply("gemini", "m", gemini.usage_metadata).complete
    for kind in ("session.usage.updated", "session.closed"):
        message = {"type": kind, "usage": usage, "reason": "close_requested"}
        _, live = openai_live_messages.decode(json.dumps(message).encode())
        assert isinstance(live, openai_live_messages.Billed) and live.seconds == 0.0


@pytest.mark.parametrize("seconds", [10**400, float("nan"), float("inf"), -1, "5", True, None])
def test_seconds_that_can_not_be_are_left_out(seconds: object) -> None:
    found = timed("deepgram", "nova-3", "session", seconds)
    assert (found.seconds, found.complete) == (0.0, False)
