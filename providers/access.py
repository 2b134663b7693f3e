"""What a tenant says of its provider's account: where it is, who we are there, which model and voice."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from providers.formats import FormatName

TOKEN_BYTES = 16 * 1024
"""An Entra token has two to four thousand characters; what is much longer is another file."""


class AccessError(Exception):
    """We can't say who we are. The text is in plain words and holds no secret."""


@dataclass(frozen=True, slots=True)
class Access:
    """How a tenant reaches its provider. What is empty is the provider's own default, where it has one.

    Attributes:
        api_key: of the account.
        token_file: a file with an access token, in place of a key.
        base_url: of the provider, or of another server that speaks its protocol.
        backend_model: that calls the tools, where the voice delegates that to another model.
        format: of the audio on the wire, both ways; None: what fits the provider best.
        noise_suppression, echo_cancellation: by the provider, where it has that.
        interim_texts: one of them is said while a reply takes long, where the provider does that.
    """

    api_key: str = field(default="", repr=False)
    token_file: Path | None = None
    base_url: str = ""
    model: str = ""
    voice: str = ""
    backend_model: str = ""
    format: FormatName | None = None
    noise_suppression: bool = True
    echo_cancellation: bool = True
    interim_texts: tuple[str, ...] = ()


async def azure_headers(access: Access) -> Mapping[str, str]:
    """Who we are to Azure: a key, or the token that the file holds now.

    A token lives about an hour, so the file is read for each connection: whoever renews it writes it there.

    Raises:
        AccessError: the file can't be read, or holds something else.
    """
    if access.token_file is None:
        return {"api-key": access.api_key}
    return {"Authorization": f"Bearer {await asyncio.to_thread(_read_token, access.token_file)}"}


def _read_token(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            found = stream.read(TOKEN_BYTES + 1)
    except OSError as error:
        raise AccessError(f"the token file {file}: {error.strerror}") from error
    token = found.strip()
    if not token:
        raise AccessError(f"the token file {file} is empty; it must hold an access token")
    if len(found) > TOKEN_BYTES or not token.isascii() or not token.decode().isprintable() or b" " in token:
        raise AccessError(f"the token file {file} holds no access token; allowed: the token alone, one line")
    return token.decode()


@dataclass(frozen=True, slots=True)
class Terms:
    """What a provider asks of a tenant's settings, and offers.

    Attributes:
        needs: fields of :class:`Access` that must not be empty.
        token: a token file can stand in the place of the key.
        key_variable: the environment variable that holds the key where the tenant names none.
        formats: of the audio on the wire; the first one is its default.
    """

    needs: tuple[str, ...] = ()
    token: bool = False
    key_variable: str = ""
    formats: tuple[FormatName, ...] = ("pcm24", "pcmu", "pcma")

    def missing(self, access: Access) -> list[str]:
        """What the provider needs and this access does not say."""
        return [
            name
            for name in self.needs
            if not getattr(access, name) and not (name == "api_key" and self.token and access.token_file)
        ]


TERMS: Mapping[str, Terms] = {
    "local": Terms(needs=("base_url",)),
    "pipeline": Terms(needs=("base_url", "model")),
    "openai": Terms(needs=("api_key",), key_variable="OPENAI_API_KEY"),
    "azure-openai": Terms(
        needs=("api_key", "base_url", "model"), token=True, key_variable="AZURE_OPENAI_API_KEY"
    ),
    "azure-voicelive": Terms(
        needs=("api_key", "base_url", "model"),
        token=True,
        key_variable="AZURE_VOICELIVE_API_KEY",
        formats=("pcm8", "pcm16", "pcm24", "pcmu", "pcma"),
    ),
    "openai-live": Terms(
        needs=("api_key",), key_variable="OPENAI_API_KEY", formats=("pcm24", "pcm16", "pcmu", "pcma")
    ),
    "gemini": Terms(needs=("api_key",), key_variable="GEMINI_API_KEY", formats=("pcm16",)),
    # The model is the agent's id. The formats are the agent's own: what it says itself counts.
    "elevenlabs": Terms(
        needs=("api_key", "model"),
        key_variable="ELEVENLABS_API_KEY",
        formats=("pcmu", "pcm8", "pcm16", "pcm24"),
    ),
}
"""By the provider's name."""

__all__ = ["TERMS", "Access", "AccessError", "Terms", "azure_headers"]
