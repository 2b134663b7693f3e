"""Which parts a tenant's sessions have: what settings say, and what the model server makes of it.

The specifications cross from the service to the model server's process, in JSON and with their keys, through
its environment. Only :func:`make_parts` and :func:`check` load what the parts need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import TypeAdapter, ValidationError

if TYPE_CHECKING:
    from audio.vad import VadModel
    from providers.local.chat import Chat
    from providers.local.deepgram import Deepgram
    from providers.local.listening import Hears
    from providers.local.remote_speech import RemoteSpeaker
    from providers.local.session import Closes, Parts
    from providers.local.speech import Speaks

PREFIX: Final = "pipeline/"
"""A session whose model begins with this has the parts of the pipeline that is named behind it."""

RecognitionKind = Literal["whisper", "deepgram"]
DialogueKind = Literal["rules", "chat"]
SpeechKind = Literal["espeak", "piper", "deepgram", "openai"]
Encoding = Literal["linear16", "mulaw"]

OPENAI: Final = "https://api.openai.com/v1"
DEEPGRAM: Final = "https://api.deepgram.com"


@dataclass(frozen=True, slots=True)
class RecognitionSpec:
    """Speech to text; of ``whisper`` the kind alone counts."""

    kind: RecognitionKind = "whisper"
    base_url: str = DEEPGRAM
    model: str = "nova-3"
    language: str = "pt-BR"
    encoding: Encoding = "linear16"
    api_key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class DialogueSpec:
    """What talks: the built-in rules, or a language model."""

    kind: DialogueKind = "rules"
    base_url: str = OPENAI
    model: str = ""
    api_key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class SpeechSpec:
    """Text to speech; ``piper_voice`` is a file, ``voice`` a service's name of it."""

    kind: SpeechKind = "espeak"
    base_url: str = OPENAI
    model: str = ""
    voice: str = ""
    piper_voice: str = ""
    api_key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """The parts of one tenant's sessions."""

    recognition: RecognitionSpec = RecognitionSpec()
    dialogue: DialogueSpec = DialogueSpec()
    speech: SpeechSpec = SpeechSpec()


Pipelines = Mapping[str, PipelineSpec]
"""By the tenant's id."""
_PIPELINES: Final[TypeAdapter[dict[str, PipelineSpec]]] = TypeAdapter(dict[str, PipelineSpec])


class PipelineError(Exception):
    """The specifications make no sense. The text holds no key."""


def write(pipelines: Pipelines) -> str:
    """As :func:`read` takes it. It holds the keys: for an environment, never for a log."""
    return _PIPELINES.dump_json(dict(pipelines)).decode()


def read(text: str) -> dict[str, PipelineSpec]:
    """What :func:`write` wrote.

    Raises:
        PipelineError: it is something else.
    """
    try:
        return _PIPELINES.validate_json(text, strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        where = ".".join(str(place) for place in problems[0]["loc"])
        raise PipelineError(f"the pipelines' specifications: {where}: {problems[0]['msg']}") from None


# -- the parts -----------------------------------------------------------------------------------------------


def deepgram(spec: RecognitionSpec) -> Deepgram:
    """The recognition of a specification of this kind."""
    from providers.local.deepgram import Deepgram, DeepgramSettings

    return Deepgram(
        DeepgramSettings(
            base_url=spec.base_url,
            api_key=spec.api_key,
            model=spec.model,
            language=spec.language,
            encoding=spec.encoding,
        )
    )


def chat(spec: DialogueSpec) -> Chat:
    """The language model of a specification of this kind."""
    from providers.local.chat import Chat, ChatSettings

    return Chat(ChatSettings(base_url=spec.base_url, model=spec.model, api_key=spec.api_key))


def remote_speaker(spec: SpeechSpec) -> RemoteSpeaker:
    """The voice of a specification that names a service."""
    from providers.local.remote_speech import DeepgramSpeech, OpenAISpeech, RemoteSpeaker

    if spec.kind == "deepgram":
        return RemoteSpeaker(DeepgramSpeech(spec.base_url, spec.voice, spec.api_key))
    return RemoteSpeaker(OpenAISpeech(spec.base_url, spec.model, spec.voice, spec.api_key))


def make_parts(
    spec: PipelineSpec,
    vad: VadModel,
    whisper: Callable[[], Hears],
    local_voice: Callable[[Path | None], Speaks],
) -> Parts:
    """What a pipeline's sessions share.

    Args:
        whisper: gives the recognition in this process, made once for all.
        local_voice: gives a voice in this process, made once for each piper file; None: espeak-ng's.
    """
    from providers.local.dialogue import new_engine
    from providers.local.dialogue.base import at_once
    from providers.local.session import Parts

    owned: list[Closes] = []
    speaker: Speaks
    if spec.speech.kind in ("espeak", "piper"):
        speaker = local_voice(Path(spec.speech.piper_voice) if spec.speech.kind == "piper" else None)
    else:
        owned.append(speaker := remote_speaker(spec.speech))
    hears = whisper() if spec.recognition.kind == "whisper" else deepgram(spec.recognition)
    new_dialogue = at_once(new_engine)
    if spec.dialogue.kind == "chat":
        owned.append(model := chat(spec.dialogue))
        new_dialogue = model.dialogue
    return Parts(hears, speaker, vad, new_dialogue, tuple(owned))


async def check(spec: PipelineSpec) -> None:
    """Ask each part that is somebody else's whether it would take a call: a few tokens, a word, no sound.

    Raises:
        providers.local.stage.StageError: one would not.
    """
    if spec.recognition.kind == "deepgram":
        await deepgram(spec.recognition).check()
    if spec.dialogue.kind == "chat":
        model = chat(spec.dialogue)
        try:
            await model.check()
        finally:
            await model.close()
    if spec.speech.kind in ("deepgram", "openai"):
        speaker = remote_speaker(spec.speech)
        try:
            await speaker.check()
        finally:
            await speaker.close()
