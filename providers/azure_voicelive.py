"""Azure VoiceLive: its address and its connection. What is said is OpenAI's protocol in VoiceLive's words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlencode, urlsplit, urlunsplit

from providers.access import Access, azure_headers
from providers.azure_voicelive_messages import FORMATS, VoiceLiveWire
from providers.base import SessionConfig
from providers.openai_realtime import OpenAISession, session_of
from providers.tls import system_tls
from providers.websocket import Limits, Listener, connect_websocket, is_secure

API_VERSION = "2026-07-15"
PATH = "/voice-live/realtime"
DEFAULT_VOICE = "pt-BR-FranciscaNeural"


@dataclass(frozen=True, slots=True)
class VoiceLiveSettings:
    """How to reach VoiceLive, and how long to wait for it.

    Attributes:
        access: ``base_url`` is the resource's (``https://NAME.services.ai.azure.com``).
        connect_timeout_s: from opening to the confirmed configuration.
        stall_timeout_s: how long the server may refuse to take what we send.
        session_limit_s: after how long a session is taken to end; GoingAway comes ``going_away_s`` before.
    """

    access: Access
    connect_timeout_s: float = 5.0
    close_timeout_s: float = 2.0
    stall_timeout_s: float = 5.0
    session_limit_s: float = 3600.0
    going_away_s: float = 120.0

    @property
    def url(self) -> str:
        """What is connected to."""
        parts = urlsplit(self.access.base_url)
        path = parts.path.rstrip("/").removesuffix(PATH) + PATH
        query = urlencode({"api-version": API_VERSION, "model": self.access.model})
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        return urlunsplit((scheme, parts.netloc, path, query, ""))


class VoiceLiveProvider:
    """Opens sessions. See :class:`providers.base.Provider`."""

    name = "azure-voicelive"
    opens_ahead = True

    def __init__(self, settings: VoiceLiveSettings) -> None:
        self._settings = settings
        access = settings.access
        self._wire = VoiceLiveWire(
            model=access.model,
            voice=access.voice or DEFAULT_VOICE,
            audio=FORMATS[access.format or "pcm8"],
            noise_suppression=access.noise_suppression,
            echo_cancellation=access.echo_cancellation,
            interim_texts=access.interim_texts,
        )
        self._limits = Limits(
            open_s=settings.connect_timeout_s,
            close_s=settings.close_timeout_s,
            stall_s=settings.stall_timeout_s,
        )
        self._context = system_tls() if is_secure(settings.url) else None

    def open(self, config: SessionConfig) -> OpenAISession:
        """See :class:`providers.base.Provider`. Needs a running event loop."""
        voiced = replace(self._wire, voice=config.voice or self._wire.voice)
        return session_of(self.name, self._settings, voiced, config, self._connect)

    async def _connect(self, listener: Listener) -> None:
        headers = await azure_headers(self._settings.access)
        await connect_websocket(self._settings.url, headers, listener, self._limits, self._context)


def azure_voicelive(access: Access) -> VoiceLiveProvider:
    """The provider."""
    return VoiceLiveProvider(VoiceLiveSettings(access))
