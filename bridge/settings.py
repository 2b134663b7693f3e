"""The settings tree: what can be set, what is allowed, and what counts when nothing is said.

A value comes from `porteiro.toml`, from the environment (`PORTEIRO_SERVICE__MAX_CALLS=40`, which wins), or
from the defaults here. Secrets come from the environment alone: a setting that ends in `_env` names the
variable that holds one. Relative paths are relative to the file that names them. See docs/settings.md.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import tomllib
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bridge.costs.account import Currency
from bridge.costs.prices import Price
from bridge.declared import answers, template
from bridge.dialing.amqp_message import CLICK_TO_CALL, placeholders
from bridge.dialing.amqp_message import check as check_message
from bridge.dialing.ari_numbers import HOST
from bridge.dialing.ari_numbers import check_template as check_dial_string
from bridge.dialing.esl_numbers import check_template as check_phone
from bridge.endpoints.audio_stream_control import RATES, Chosen
from bridge.gates.template import check as check_template
from bridge.sentences import own_sentence_problem
from bridge.settings_disk import problems as disk_problems
from bridge.settings_problems import SettingsError, found_secrets, no_bools_for_numbers, problems_of
from providers.access import TERMS
from providers.formats import FormatName
from providers.local.models import models_root, own_checkout
from providers.local.pipeline import DialogueKind, Encoding, RecognitionKind, SpeechKind
from storage.address import Database, database_of
from tools.declared import LONGEST, argument_name_problem, pattern_problem
from tools.registry import DEADLINE_S, built_in_names
from visits.events import Outcome
from visits.facts import Intent
from visits.name_likeness import name_words

ENV_PREFIX = "PORTEIRO_"
CONFIG_VARIABLE = "PORTEIRO_CONFIG"
DEFAULT_FILE = Path("porteiro.toml")
DEFAULT_VISITOR_PORT = 8080
DEFAULT_RESIDENT_PORT = 8081
DEFAULT_HTTP_PORT = 8082
EXTENSION = r"[A-Za-z0-9*#+._-]{1,64}"
"""Of FreeSWITCH's dialplan."""
DTMF_PAUSE_S = 0.5
"""Seconds of a `w` among a gate's digits, as in Asterisk's SendDTMF()."""

__all__ = [
    "Fallback",
    "Settings",
    "SettingsError",
    "Tenant",
    "Written",
    "build",
    "clashes_among",
    "default_ports",
    "fragment_files",
    "fragments_folder",
    "load",
    "read",
    "read_env_file",
    "settings_file",
    "usable_cpus",
    "written_tree",
]

# --------------------------------------------------------------------------------------------------------
# Kinds of values
# --------------------------------------------------------------------------------------------------------


def _split(value: Any) -> Any:
    """A list out of `a, b` as an environment variable gives it."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("an IPv4 or IPv6 address, such as 127.0.0.1 or ::") from None


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise ValueError("a network in CIDR notation, such as 10.0.0.0/8 or ::1/128") from None


def _from_base(value: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base", Path())
    return Path(base, value.expanduser())


def _http_url(value: str) -> str:
    parts = urllib.parse.urlsplit(value)
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
        raise ValueError("a URL that begins with http://, https://, ws:// or wss://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL without a user or password in it; secrets come from the environment")
    try:
        fits = parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ValueError("a URL whose port is a number from 1 to 65535")
    return value


def _webhook_url(value: str) -> str:
    _http_url(value)
    parts = urllib.parse.urlsplit(value)
    if parts.scheme == "https":
        return value
    try:
        own = parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_private
    except ValueError:
        own = False
    if parts.scheme != "http" or not own:
        raise ValueError(
            "a URL that begins with https://, or with http:// and an address of your own network"
        )
    return value


def _database_url(value: str, info: ValidationInfo) -> str:
    found = database_of(value)
    if found.file is None:
        return value
    return f"sqlite:///{urllib.parse.quote(str(_from_base(found.file, info)))}"


def _dial_string(value: str) -> str:
    check_dial_string(value)
    return value


def _phone(value: str) -> str:
    check_phone(value)
    return value


def _host_and_port(value: str) -> str:
    if value and not HOST.fullmatch(value):
        raise ValueError("an address with or without a port, such as 10.0.0.5, 10.0.0.5:8081 or [::1]:8081")
    return value


def _stream_url(value: str) -> str:
    parts = urllib.parse.urlsplit(value)
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.path.strip("/") or "?" in value:
        raise ValueError("a URL without a path that begins with ws:// or wss://, such as ws://10.0.0.5:8082")
    return value.rstrip("/")


def _message(value: dict[str, Any]) -> dict[str, Any]:
    check_message(value)
    return value


def _uuid(value: str) -> str:
    try:
        return str(UUID(value))
    except ValueError:
        raise ValueError("a UUID, such as 9d2f1c1e-4a1b-4f0e-8f5e-2f6f3a1b7c55") from None


def _sample_rate(value: int) -> int:
    if value not in RATES:
        raise ValueError(" or ".join(map(str, RATES)))
    return value


DomainUuid = Annotated[str, AfterValidator(_uuid)]
Port = Annotated[int, Field(ge=0, le=65535)]
"""0: a free one, which the log names; for tests and the demo."""
Seconds = Annotated[float, Field(gt=0, le=86400)]
Threshold = Annotated[float, Field(gt=0, lt=1)]
Milliseconds = Annotated[int, Field(ge=0, le=10_000)]
MOST_OF_LINE: Final = 120
MOST_OF_SENTENCE: Final = 2_000
MOST_OF_RULES: Final = 20_000
"""Characters of what a house says itself: it is said, shown and logged as it stands."""
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def _line(value: str) -> str:
    if len(value) > MOST_OF_LINE or _CONTROLS.search(value):
        raise ValueError(f"one line of up to {MOST_OF_LINE} characters")
    return value


def _notice(value: str) -> str:
    if len(value) > MOST_OF_SENTENCE or _CONTROLS.search(value.replace("\n", " ")):
        raise ValueError(f"a sentence of up to {MOST_OF_SENTENCE} characters")
    return value


def _sentence(value: str) -> str:
    if problem := own_sentence_problem(value):
        raise ValueError(problem)
    return _notice(value)


def _rules(value: str) -> str:
    if len(value) > MOST_OF_RULES:
        raise ValueError(f"a text of up to {MOST_OF_RULES} characters")
    return value


Addresses = Annotated[
    tuple[Annotated[str, AfterValidator(_address)], ...], BeforeValidator(_split), Field(min_length=1)
]
OptionalAddresses = Annotated[tuple[Annotated[str, AfterValidator(_address)], ...], BeforeValidator(_split)]
Networks = Annotated[
    tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(_split), Field(min_length=1)
]
OptionalNetworks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(_split)]
FilePath = Annotated[Path, AfterValidator(_from_base)]
Url = Annotated[str, AfterValidator(_http_url)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
OptionalUrl = Annotated[str, AfterValidator(lambda value: _http_url(value) if value else value)]
Line = Annotated[str, AfterValidator(_line)]
Sentence = Annotated[str, AfterValidator(_sentence)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
TenantId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
QueueName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{1,120}$")]
ExchangeName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{0,120}$")]
Key = Annotated[str, StringConstraints(pattern=r"^[0-9*#]$")]
Numbers = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+*#._-]{1,80}$")], ...],
    BeforeValidator(_split),
]
"""What is dialled: digits, or a name as a dialplan has it (`portaria`)."""
Fact = Literal["visitor_name", "apartment", "resident"]
WebhookEvent = Literal["visit.started", "visit.decided", "visit.ended"]
ProviderName = Literal[
    "local", "pipeline", "openai", "azure-openai", "azure-voicelive", "openai-live", "gemini", "elevenlabs"
]


class Part(BaseModel):
    """One table of the settings: unknown names are refused, and nothing in it ever changes."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, data: Any) -> Any:
        return no_bools_for_numbers(cls, data)


# --------------------------------------------------------------------------------------------------------
# The service
# --------------------------------------------------------------------------------------------------------


class Log(Part):
    """How the service writes its log, on standard error."""

    format: Literal["auto", "json", "pretty"] = "auto"
    """`auto`: pretty on a terminal, JSON elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Less important lines are left out. Libraries write from `warning` on, whatever stands here."""


class ModelServer(Part):
    """The embedded model server, which runs where a tenant's provider is `local`."""

    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """On loopback. 0: a free one."""
    threads: Annotated[int, Field(ge=0, le=64)] = 0
    """CPU threads for speech recognition. 0: one for each core, at most four."""
    start_timeout_s: Seconds = 60.0
    """How long it may take to load its models."""
    weights: FilePath | None = None
    """A directory with the whisper files, tried before anything is downloaded."""
    piper_voice: FilePath | None = None
    """A piper voice (`….onnx` beside its `….onnx.json`). Without it espeak-ng speaks."""


def usable_cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Service(Part):
    """What holds for the whole process."""

    listen: Addresses = ("127.0.0.1", "::1")
    """The addresses for AudioSocket. A PBX on another machine: `["0.0.0.0", "::"]` and its address below."""
    visitor_port: Port = DEFAULT_VISITOR_PORT
    """Of a tenant that names none."""
    resident_port: Port = DEFAULT_RESIDENT_PORT
    """Of a tenant that names none."""
    websocket_port: Port | None = None
    """For Asterisk's WebSocket channels, of all tenants: `ws://HOST:PORT/asterisk/TENANT/visitor` and
    `…/resident`. Not set: none is listened on."""
    audio_stream_port: Port | None = None
    """For FreeSWITCH's audio streams, of all tenants: `ws://HOST:PORT/stream/DOMAIN_UUID/CALL_UUID`. Not set:
    they come to the HTTP port alone, under the same path."""
    websocket_certificate: FilePath | None = None
    """PEM, with the chain: the WebSocket port and the audio stream port then speak TLS, `wss://`. Together
    with websocket_key."""
    websocket_key: FilePath | None = None
    """The certificate's key."""
    http_port: Port | None = DEFAULT_HTTP_PORT
    """For the console and the HTTP API (docs/api.md): people log in there, the PBX registers calls before
    they come (`POST /v1/calls`), and whoever watches over the service asks `/ready` and `/health`."""
    http_listen: OptionalAddresses = ("127.0.0.1", "::1")
    """The addresses for it; none (`[]`): it is not listened on. With others than this machine's own, set
    http_certificate as well, or have a proxy before it: passwords travel here."""
    http_certificate: FilePath | None = None
    """PEM, with the chain: the port then speaks TLS, `https://`. Together with http_key_file."""
    http_key_file: FilePath | None = None
    """The certificate's key."""
    http_proxies: OptionalNetworks = ()
    """Addresses of proxies that stand before it: whom they pass on (`X-Forwarded-For`), and whether that was
    over TLS (`X-Forwarded-Proto`), counts for the connection. They must pass on `Host` as well."""
    http_key_env: EnvName | None = None
    """The environment variable that holds a key for registering calls, and nothing else, as
    `Authorization: Bearer KEY`; API keys with the role `pbx` do the same. Not set: programs on this machine
    register without a key, where only this machine's addresses are listened on and no proxies are named."""
    registration_s: Annotated[float, Field(ge=1, le=3600)] = 60.0
    """How long a registered call may take to come."""
    max_registrations: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Calls that are registered and have not come. One more is turned down."""
    allowed_peers: Networks = ("127.0.0.0/8", "::1/128")
    """Who may connect. AudioSocket has neither encryption nor a password: name your PBX and nobody else. IPv6
    networks hold no IPv4 addresses: everybody is `["0.0.0.0/0", "::/0"]`."""
    max_calls: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Legs at the same time, over all tenants. The next one is refused."""
    workers: Annotated[int, Field(ge=0, le=64)] = 1
    """Processes that run the visits, behind the same ports. 1: the service's own, and no other. 0: one for
    each CPU that the service may use. More than one need Linux."""
    handshake_s: Seconds = 5.0
    """A connection that has not said its UUID by then is closed."""
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 60.0
    """How long running visits may take to end after a request to stop."""
    data_dir: FilePath = Path("var")
    """Where everything that the service keeps lies, unless the next two say otherwise."""
    database: FilePath | None = None
    """The audit log, in a file of SQLite's. Default: `porteiro.db` in data_dir."""
    database_url: DatabaseUrl | None = None
    """The audit log, in place of `database`: `postgresql://user@host:5432/name`, with TLS by
    `?sslmode=verify-full&sslrootcert=FILE`; or `sqlite:///FILE`. Several services may share a PostgreSQL."""
    database_password_env: EnvName = "PGPASSWORD"
    """The environment variable that holds the PostgreSQL user's password, where there is one."""
    recordings_dir: FilePath | None = None
    """Default: `recordings` in data_dir."""
    prices_file: FilePath | None = None
    """Prices of models, in a file like data/prices.toml, in whose place they count. See docs/costs.md."""
    models_dir: FilePath | None = None
    """Default: `.cache/models` in the project's checkout where set-up put them, else the user's cache."""
    log: Log = Log()
    model_server: ModelServer = ModelServer()

    @model_validator(mode="after")
    def _tls_pair(self) -> Self:
        if (self.websocket_certificate is None) != (self.websocket_key is None):
            raise ValueError("websocket_certificate and websocket_key go together")
        if (self.http_certificate is None) != (self.http_key_file is None):
            raise ValueError("http_certificate and http_key_file go together")
        return self

    @property
    def http_on(self) -> bool:
        """Whether the HTTP port is listened on."""
        return self.http_port is not None and bool(self.http_listen)

    @property
    def http_public(self) -> bool:
        """Whether others than programs on this machine can ask there."""
        own = all(ipaddress.ip_address(host).is_loopback for host in self.http_listen)
        return not own or bool(self.http_proxies)

    @property
    def worker_count(self) -> int:
        """`workers`, counted where it is 0."""
        if self.workers:
            return self.workers
        return usable_cpus()

    @model_validator(mode="after")
    def _one_database(self) -> Self:
        if self.database is not None and self.database_url is not None:
            raise ValueError("database or database_url, not both")
        return self

    @property
    def database_path(self) -> Path | None:
        """SQLite's file; None where the audit log is in a PostgreSQL."""
        if self.database_url is not None:
            return database_of(self.database_url).file
        return self.database or self.data_dir / "porteiro.db"

    @property
    def locked_path(self) -> Path:
        """What one service at a time has to itself: SQLite's file, or with a PostgreSQL the journal."""
        return self.database_path or self.journal_path

    @property
    def journal_path(self) -> Path:
        """Where records wait while the PostgreSQL is away."""
        return self.data_dir / "journal"

    @property
    def recordings_path(self) -> Path:
        return self.recordings_dir or self.data_dir / "recordings"

    @property
    def models_path(self) -> Path:
        """The configured one, or the cache that `porteiro models fetch` uses by itself."""
        return models_root(self.models_dir, cwd=Path.cwd(), environ=os.environ, checkout=own_checkout())

    @property
    def peers(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """`allowed_peers`, parsed."""
        return tuple(ipaddress.ip_network(network) for network in self.allowed_peers)


# --------------------------------------------------------------------------------------------------------
# A tenant
# --------------------------------------------------------------------------------------------------------


class Recording(Part):
    """Whether calls are kept as sound, which the law may want to be announced."""

    enabled: bool = False
    """Keep each leg as a stereo WAV file: the caller left, we right."""
    notice: Annotated[str, AfterValidator(_notice)] = ""
    """Said to each caller at the start: after the greeting, and before a resident is told who is there.
    Empty: "Esta ligação é gravada."."""
    retention_days: Annotated[int, Field(ge=0, le=36_500)] = 90
    """A recording is removed so many days after its visit began. 0: it is kept for good."""


class Retention(Part):
    """How long what the audit log has of people is kept. See docs/privacy.md."""

    transcripts_days: Annotated[int, Field(ge=0, le=36_500)] = 365
    """What was said, what the tools were asked and answered, and notes: erased so many days after the visit
    began. 0: kept for good."""
    visits_days: Annotated[int, Field(ge=0, le=36_500)] = 1825
    """Who came for whom, and from which number: likewise, with all that is left of the above. When a visit
    was, its apartment, what was decided and what the gate answered stay. 0: kept for good."""


class Limits(Part):
    """When patience ends."""

    max_calls: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Legs of this tenant at the same time."""
    max_visit_s: Annotated[float, Field(ge=20, le=7200)] = 300.0
    """A visit is ended after that, whatever goes on."""
    silence_s: Annotated[float, Field(ge=2, le=120)] = 7.0
    """A caller who says nothing for so long is asked again."""
    silence_prompts: Annotated[int, Field(ge=0, le=10)] = 2
    """How often, before the call is ended."""
    lookup_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Wrong apartments or residents, before the attendant is offered."""
    ring_s: Annotated[float, Field(ge=5, le=120)] = 25.0
    """How long a resident's phone rings at each attempt."""
    dial_attempts: Annotated[int, Field(ge=1, le=5)] = 2
    """How often a resident is called, before the visitor is told that nobody answers."""
    consult_s: Annotated[float, Field(ge=10, le=600)] = 90.0
    """How long a resident may take to decide once they answered."""
    connected_s: Annotated[float, Field(ge=20, le=3600)] = 180.0
    """How long resident and visitor may talk to each other, within `max_visit_s`."""


class Goodbyes(Part):
    """What a visitor hears last in place of the usual sentences, by how the visit ended."""

    authorized: Sentence | None = None
    """Said last to a visitor in place of the usual sentence, where the resident authorised and the gate
    opened; `{condominio}` in it is the house's name. Whatever is said last, the call is hung up after 20 s.
    That the gate didn't answer, or that a person takes the call over, is told in our words all the same."""
    denied: Sentence | None = None
    """Where the resident refused."""
    unreachable: Sentence | None = None
    """Where nobody answered, or nobody decided."""
    abandoned: Sentence | None = None
    """Where the visitor wanted nothing any more, said nothing, or took too long."""
    failed: Sentence | None = None
    """Where something of ours broke. Keep it short: the call is hung up after 6 s."""


class HoldAudio(Part):
    """What a visitor hears while nobody speaks to them, because a resident is being called or asked."""

    sound: Literal["ring", "chime", "noise", "silence", "file"] = "ring"
    """What a visitor hears while a resident is called or asked. `ring`: the ring-back tone. `chime`: two soft
    notes at a time. `noise`: a quiet line. `silence`. `file`: a sound of the house's. It stops at once when
    the doorman speaks, or the visitor."""
    file: FilePath | None = None
    """Half a second to a minute, begun anew as often as needed, as loud as it is: a WAV file (PCM or G.711,
    one or two channels, 8000 to 192000 samples a second), or one at 8 kHz without a header (`.ulaw`,
    `.alaw`, `.sln`). Read when the settings are; a file that is replaced counts from the next change on."""

    @model_validator(mode="after")
    def _file_there(self) -> Self:
        if self.sound == "file" and self.file is None:
            raise ValueError("sound = 'file' together with the file that it plays")
        return self


ConsentPolicy = Literal["voice", "voice_and_key", "key"]


def with_policy(consent: Mapping[str, Any]) -> dict[str, Any]:
    """A table `consent` as it is written now: `keys`, as it was called, is part of `policy`.

    Raises:
        ValueError: it has both, or `keys` is neither true nor false.
    """
    after = dict(consent)
    if "keys" not in after:
        return after
    if "policy" in after:
        raise ValueError("policy alone: keys is its earlier name")
    keys = str(after.pop("keys")).lower()
    if keys not in ("true", "false"):
        raise ValueError("policy, or its earlier name: keys = true or keys = false")
    return {"policy": "voice_and_key" if keys == "true" else "voice", **after}


class Consent(Part):
    """How a resident may decide."""

    policy: ConsentPolicy = "voice_and_key"
    """What lets a visitor in. `voice`: the resident's words; no key counts. `voice_and_key`: words or the
    key, whichever comes. `key`: the key alone. A spoken refusal keeps the gate closed in any case. Settings
    of earlier versions are still read: `keys = true` is `voice_and_key`, `keys = false` is `voice`."""
    authorize_key: Key = "1"
    """Lets the visitor in."""
    deny_key: Key = "2"
    """Does not."""

    @model_validator(mode="before")
    @classmethod
    def _earlier_name(cls, data: Any) -> Any:
        return with_policy(data) if isinstance(data, Mapping) else data

    @property
    def by_voice(self) -> bool:
        """Words authorise."""
        return self.policy != "key"

    @property
    def by_key(self) -> bool:
        """Keys count."""
        return self.policy != "voice"

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.authorize_key == self.deny_key:
            raise ValueError("authorize_key and deny_key must be two different keys")
        return self


class GateAuth(Part):
    """How the device knows us. The user and the password stand in the environment."""

    kind: Literal["none", "basic", "digest"] = "none"
    """`none` still fills {username} and {password} where they are named."""
    username_env: EnvName | None = None
    """The environment variable that holds the user."""
    password_env: EnvName | None = None
    """The environment variable that holds the password."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind != "none" and not (self.username_env and self.password_env):
            raise ValueError(f"kind {self.kind!r} needs username_env and password_env")
        return self


class GateSuccess(Part):
    """Which answer means that the door was opened. All that is set must hold."""

    status: Annotated[
        tuple[Annotated[int, Field(ge=200, le=599)], ...], BeforeValidator(_split), Field(min_length=1)
    ] = (200,)
    """Status codes."""
    body_contains: str = ""
    """Words of the answer, as they are."""
    json_path: Annotated[str, StringConstraints(pattern=r"^([^.]+(\.[^.]+)*)?$")] = ""
    """Names and list positions with dots between them, for instance `result.0.success`."""
    json_equals: bool | int | float | str | None = None
    """What must stand there (`true`, a number, a text); together with json_path."""

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if bool(self.json_path) != (self.json_equals is not None):
            raise ValueError("json_path and json_equals go together")
        return self


class RecordGate(Part):
    """Opens nothing; the audit log says that it was asked to."""

    kind: Literal["record"] = "record"


class HttpGate(Part):
    """A door controller with an HTTP interface.

    In url, headers and body `{visit}`, `{apartment}`, `{tenant}` and `{at}` are replaced, and `{username}`
    and `{password}` for devices that want them there.
    """

    kind: Literal["http"]
    url: str
    """Of the one request that opens the door. It may hold placeholders."""
    method: Literal["GET", "POST", "PUT", "PATCH"] = "POST"
    """As the device wants it."""
    headers: dict[str, str] = {}
    """Further ones; they may hold placeholders."""
    headers_env: dict[str, EnvName] = {}
    """Headers whose whole value is a secret: the variable that holds it."""
    body: str = ""
    """It may hold placeholders. Empty: none is sent."""
    body_kind: Literal["json", "form", "xml", "text"] = "json"
    """What the body is, so that what is put into it is escaped and the content type is right."""
    auth: GateAuth = GateAuth()
    success: GateSuccess = GateSuccess()
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """For everything: connecting, asking, answering."""
    verify_tls: bool = True
    """False: any certificate will do. Better name the device in ca_file."""
    ca_file: FilePath | None = None
    """The certificate of a device that signs its own."""

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        _http_url(value)
        if not value.startswith(("http://", "https://")):
            raise ValueError("a URL that begins with http:// or https://")
        return value

    @field_validator("url", "body")
    @classmethod
    def _placeholders(cls, value: str) -> str:
        check_template(value)
        return value

    @field_validator("headers")
    @classmethod
    def _headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if name.lower() in ("authorization", "proxy-authorization", "cookie", "x-api-key"):
                raise ValueError(
                    f"headers that are no secret; {name} is one: name its variable in headers_env"
                )
            check_template(text)
        return value


class AmqpGate(Part):
    """A site's own door system, told through a RabbitMQ queue."""

    kind: Literal["amqp"]
    url_env: EnvName = "AMQP_URL"
    """The environment variable that holds the broker's URL: `amqp://user:password@host:5672/vhost`, or
    `amqps://` for TLS."""
    queue: QueueName = "fila_autorizacao"
    """Where the message goes; at an exchange, its routing key. It must be there: the site declares it."""
    exchange: ExchangeName = ""
    """Empty: the default one, where the key is the queue's name."""
    tell_refusals: bool = True
    """Whether a message says too that a resident refused."""
    expires_s: Annotated[float, Field(ge=0, le=86400)] = 60.0
    """A message that nobody took by then is thrown away: no door is to open to nobody later. 0: never."""
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """For everything: a connection, the message, the broker's confirmation."""
    ca_file: FilePath | None = None
    """The certificate of a broker that signs its own."""


class DtmfGate(Part):
    """The intercom's own relay, which opens by DTMF digits that we have the PBX play on the visitor's call.

    With Asterisk it needs the tenant's `manager`, and calls that are registered with their channel: for one
    that is not, the gate stays closed. With FreeSWITCH it needs `esl`.
    """

    kind: Literal["dtmf"]
    digits: Annotated[str, StringConstraints(pattern=r"^w*[0-9A-D*#][0-9A-D*#w]*$", max_length=16)]
    """What opens the door, as the intercom is set up: `9`, `#5`. `w` is a pause of half a second."""
    duration_ms: Annotated[int, Field(ge=50, le=1000)] = 250
    """How long each digit sounds."""
    gap_ms: Annotated[int, Field(ge=50, le=1000)] = 250
    """The silence between two digits."""

    @model_validator(mode="after")
    def _short(self) -> Self:
        if self.playing_s > 10:
            raise ValueError(f"digits that take 10 s at most, not {self.playing_s:g} s")
        return self

    @property
    def playing_s(self) -> float:
        """How long the digits take by themselves, in seconds."""
        pauses = self.digits.count("w")
        keys = len(self.digits) - pauses
        return (keys * self.duration_ms + (keys - 1) * self.gap_ms) / 1000 + pauses * DTMF_PAUSE_S


Gate = Annotated[RecordGate | HttpGate | AmqpGate | DtmfGate, Field(discriminator="kind")]


class AnyDialer(Part):
    """What every kind of dialer has."""

    visit_uuid_on_resident_port: bool = False
    """For click-to-call systems that give the resident's leg the visit's own UUID. `amqp` has it true. A
    stream of FreeSWITCH's needs the attempt's in any case: with the visit's it is the visitor's."""


class PlainDialer(AnyDialer):
    """A dialer that needs no PBX."""

    kind: Literal["manual", "simulated"] = "manual"
    """`manual`: nobody is dialled; whoever calls the resident port with the attempt's id is the resident, and
    the log says how (`porteiro call`). `simulated`: a phone inside this process, for trying things out."""


class AriDialer(AnyDialer):
    """Asterisk calls the resident; we ask it to through its REST interface (ARI)."""

    kind: Literal["ari"]
    url: Url = "http://127.0.0.1:8088/ari"
    """Of ARI: http.conf's address, and `/ari`."""
    username: str = "porteiro"
    """A user of ari.conf, with read_only=no."""
    password_env: EnvName
    """The environment variable that holds that user's password."""
    app: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "porteiro"
    """The name under which Asterisk knows us. Each running service needs its own; several workers put their
    number behind it (`porteiro-1`)."""
    dial_string: Annotated[str, AfterValidator(_dial_string)] = "PJSIP/{number}"
    """What Asterisk dials. `{number}` is the directory's extension, or the user of its SIP address; `{host}`
    is that address's host: `Local/{number}@from-porteiro`, `PJSIP/trunk/sip:{number}@{host}`."""
    caller_id: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{0,80}$")] = ""
    """What the resident's phone shows: `Portaria <9000>`. Empty: what Asterisk gives it."""
    context: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,79}$")] = "porteiro-resident"
    """The context of the dialplan whose extension s connects an answered phone to the resident port."""
    audiosocket: Annotated[str, AfterValidator(_host_and_port)] = ""
    """Where Asterisk reaches the resident port: `10.0.0.5` or `10.0.0.5:8081`. Must be given where ARI is on
    another machine."""

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")) or "?" in value or "#" in value:
            raise ValueError("a URL that begins with http:// or https://, such as http://127.0.0.1:8088/ari")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        host = urllib.parse.urlsplit(self.url).hostname or ""
        if not self.audiosocket and host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError(
                f"audiosocket as well: Asterisk is on {host}; name the address where it reaches this machine"
            )
        return self

    @property
    def audiosocket_parts(self) -> tuple[str, int | None]:
        """Host and port of `audiosocket`; what it leaves out is empty, or None."""
        parts = urllib.parse.urlsplit(f"//{self.audiosocket}")
        return parts.hostname or "", parts.port


class AmqpDialer(AnyDialer):
    """A click-to-call system calls the resident; it takes its orders from a RabbitMQ queue."""

    kind: Literal["amqp"]
    url_env: EnvName = "AMQP_URL"
    """The environment variable that holds the broker's URL: `amqp://user:password@host:5672/vhost`, or
    `amqps://` for TLS."""
    queue: QueueName = "api-to-voip1"
    """Where the order goes; at an exchange, its routing key. It must be there: the site declares it."""
    exchange: ExchangeName = ""
    """Empty: the default one, where the key is the queue's name."""
    license: str = ""
    """What `{license}` stands for in the message."""
    message: Annotated[dict[str, Any], AfterValidator(_message)] = dict(CLICK_TO_CALL)
    """The order, which is sent as JSON. In its texts `{visit}` and `{attempt}` (UUIDs), `{number}` (the
    directory's extension, or the user of its SIP address), `{address}` (as the directory has it), `{tenant}`,
    `{license}` and `{timestamp}` (seconds) are replaced."""
    timeout_s: Annotated[float, Field(gt=0, le=15)] = 5.0
    """How long the broker may take to confirm the order; the phone rings within limits.ring_s."""
    ca_file: FilePath | None = None
    """The certificate of a broker that signs its own."""
    visit_uuid_on_resident_port: bool = True

    @model_validator(mode="after")
    def _comes_back(self) -> Self:
        if not self.visit_uuid_on_resident_port and "attempt" not in placeholders(self.message):
            raise ValueError(
                "visit_uuid_on_resident_port = true: the message does not name the attempt ({attempt}), so "
                "the resident's call can come back with the visit's UUID only"
            )
        return self


class FreeswitchDialer(AnyDialer):
    """FreeSWITCH calls the resident; we ask it to over its event socket (the tenant's `esl`), and have it
    stream the call to us (`freeswitch.domain_uuid`)."""

    kind: Literal["freeswitch"]
    dial_string: Annotated[str, AfterValidator(_phone)] = "user/{number}@{domain}"
    """What FreeSWITCH dials: one phone. `{number}` is the directory's extension, or the user of its SIP
    address; `{host}` is that address's host; `{domain}` is the setting below:
    `sofia/gateway/NAME/{number}`."""
    domain: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]{0,200}$")] = ""
    """The domain's name, which FusionPBX's dialplan wants too (`domain_name`): `jardim.example`."""
    caller_id_name: Annotated[str, StringConstraints(pattern=r"^[\w .-]{0,60}$")] = ""
    """What the resident's phone shows: `Portaria`. Empty: what FreeSWITCH gives it."""
    caller_id_number: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9*#+]{0,40}$")] = ""
    """The number that it shows. Empty: what FreeSWITCH gives it."""
    stream_url: Annotated[str, AfterValidator(_stream_url)] = "ws://127.0.0.1:8082"
    """Where FreeSWITCH reaches our port for streams, of residents and visitors: `ws://10.0.0.5:8082`,
    `wss://porteiro.example:8443`. The HTTP port, or service.audio_stream_port."""

    @model_validator(mode="after")
    def _domain_named(self) -> Self:
        if "{domain}" in self.dial_string and not self.domain:
            raise ValueError("domain as well: dial_string has {domain} in it")
        return self


def _with_kind(value: Any) -> Any:
    """A dialer's table needs no kind where it is the usual one."""
    return {"kind": "manual", **value} if isinstance(value, dict) else value


Dialer = Annotated[
    PlainDialer | AriDialer | AmqpDialer | FreeswitchDialer,
    Field(discriminator="kind"),
    BeforeValidator(_with_kind),
]


class Manager(Part):
    """The Asterisk Manager (AMI), which acts on the visitor's call: digits of a gate, the transfer to the
    attendant. It is asked over Asterisk's web server (manager.conf: webenabled = yes)."""

    url: Url = "http://127.0.0.1:8088"
    """Of Asterisk's web server: http.conf's address, and its prefix where it has one."""
    username: str = "porteiro"
    """A user of manager.conf, with write = call."""
    password_env: EnvName
    """The environment variable that holds that user's secret."""

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")) or "?" in value or "#" in value:
            raise ValueError("a URL that begins with http:// or https://, such as http://127.0.0.1:8088")
        return value.rstrip("/")


SwitchMode = Literal["realtime", "attendant", "legacy"]
"""Who answers a call that FreeSWITCH brings."""


class Esl(Part):
    """FreeSWITCH's event socket, which acts on the calls that it streams to us: the dialer of kind
    `freeswitch`, the digits of a gate, keys that callers press, the transfer to the attendant, hanging up."""

    host: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:-]{1,253}$")] = "127.0.0.1"
    """Where it listens (listen-ip of event_socket.conf.xml). It has no TLS: on another machine only through a
    tunnel."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8021
    """listen-port of event_socket.conf.xml."""
    password_env: EnvName
    """The environment variable that holds its password."""
    sounds: FilePath | None = None
    """For `freeswitch.playback = "file"` and `attendant.announce`: a directory that FreeSWITCH reads too,
    with nothing else in it. In memory best (`/run/porteiro/sounds`): with `file` a call writes three short
    files a second while we talk."""
    sounds_in_freeswitch: Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9/._-]{0,200})?$")] = ""
    """The same directory as FreeSWITCH sees it, where that is elsewhere (a container)."""


class Freeswitch(Part):
    """Calls that FreeSWITCH brings over mod_audio_stream or mod_audio_fork."""

    domain_uuid: DomainUuid
    """The domain's, as FusionPBX has it in `v_domains`; elsewhere any UUID. No two tenants share one. Needed
    where FreeSWITCH brings calls."""
    enabled: bool = True
    """`false`: no visitor is taken there."""
    mode: SwitchMode = "realtime"
    """Who answers a visitor, for FreeSWITCH's script, which asks (`GET /v1/route`). `realtime`: Porteiro.
    `attendant`: the attendant. `legacy`: the site's own service. Where those two are, the dialplan says."""
    token_env: EnvName | None = None
    """The environment variable that holds what each stream must show: `?token=…` of its URL,
    `Authorization: Bearer …`, or the password of HTTP's basic authentication. Not set: its address is enough
    (service.allowed_peers), which must not be everybody's then, nor a proxy's."""
    playback: Chosen = "auto"
    """How our audio goes back. `binary`: mod_audio_stream 1.0.3 with STREAM_PLAYBACK=true. `fork`:
    mod_audio_fork. `base64`: voxcom's fork of mod_audio_stream. `file`: mod_audio_stream as it is built from
    source plays nothing; short files are played over `esl`, from `esl.sounds`. `auto`: what the metadata says
    as `playback`, else `fork` where the stream asks for a subprotocol, else `base64`."""
    sample_rate: Annotated[int, AfterValidator(_sample_rate)] = 8000
    """Samples per second, 8000 or 16000, both ways, as the stream is started; `sample_rate` of the metadata
    comes first."""
    channels: Annotated[int, Field(ge=1, le=2)] = 1
    """Of what comes: 1 for `mono`, 2 for `stereo`, whose left is the caller; `channels` of the metadata comes
    first."""


class Attendant(Part):
    """The person who is offered when a visitor can't be helped.

    With Asterisk this needs the tenant's `manager`, and calls that are registered with their channel: to a
    visitor whose call is not, nobody is promised. With FreeSWITCH it needs `esl`.
    """

    extension: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+*#@:/&-]{1,80}$")]
    """Whom the PBX rings: a telephone of pjsip.conf (`attendant`), or a dial string (`Local/9000@house`);
    with FreeSWITCH an extension of the visitor's own context (`9000`)."""
    name: Line = "portaria"
    """How a visitor hears of them: "vou transferir para a portaria"."""
    announce: bool = False
    """Whether they, or a department, first hear in our own voice what is known of the errand, and then the
    visitor. On calls that FreeSWITCH brings; needs `esl.sounds`."""


class Webhooks(Part):
    """Where the house's own system hears of visits. See docs/webhooks.md."""

    url: Annotated[str, AfterValidator(_webhook_url)]
    """Gets each event as a POST: `https://`, or `http://` and an address of your own network. Needed where
    events are told."""
    secret_env: EnvName
    """The environment variable that holds the secret by which it knows that they are ours: 24 to 64
    random bytes in base64, with or without `whsec_` before them. Needed where events are told."""
    events: Annotated[tuple[WebhookEvent, ...], BeforeValidator(_split), Field(min_length=1)] = (
        "visit.started",
        "visit.decided",
        "visit.ended",
    )
    """Which it gets."""
    personal: bool = False
    """Whether they say who came and for whom, and from which number. Without it they name nobody."""
    timeout_s: Annotated[float, Field(ge=1, le=20)] = 10.0
    """For each attempt: connecting, sending, its answer, which should not wait for what it does."""
    give_up_hours: Annotated[float, Field(ge=0.1, le=168)] = 24.0
    """An event that it has not taken by then is given up, which goes on record; `porteiro webhook resend`
    sends it again."""
    ca_file: FilePath | None = None
    """The certificate of a system that signs its own."""


def _department(value: str) -> str:
    if not name_words(value):
        raise ValueError("a name with words in it")
    return _line(value)


class Department(Part):
    """Where callers are put through to who ask for it by its name."""

    extension: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+*#@:/&-]{1,80}$")]
    """Whom the PBX rings, as with the attendant."""
    also: Annotated[tuple[Annotated[str, AfterValidator(_department)], ...], Field(max_length=20)] = ()
    """What else people call it: `["boletos", "contas a pagar"]`."""


# ---- tools that a tenant declares --------------------------------------------------------------------------

MOST_OF_ANSWER: Final = 4_000
"""Characters of an answer that a model sees, over all of its fields."""
TOOL_TIMEOUT_S: Final = 5.0
"""The longest that a tool may take: less than a model waits for any (`tools.registry.DEADLINE_S`)."""
assert TOOL_TIMEOUT_S < DEADLINE_S


def _argument_name(value: str) -> str:
    if problem := argument_name_problem(value):
        raise ValueError(problem)
    if value in (*template.ALWAYS, *template.SOMETIMES):
        raise ValueError(f"another name than {value!r}, which stands for something of the call's")
    return value


def _tool_name(value: str) -> str:
    if value in built_in_names():
        raise ValueError(f"another name than {value!r}: that tool is Porteiro's own")
    return value


def _tool_text(value: str) -> str:
    if not value.strip() or _CONTROLS.search(value.replace("\n", " ")):
        raise ValueError("a text that tells the model what it is for")
    return value


def _pointer(value: str) -> str:
    answers.steps(value)
    return value


def _host_of(url: str) -> str:
    """A URL's host, the same however it is written."""
    return (urllib.parse.urlsplit(url).hostname or "").lower().rstrip(".")


Word = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
ArgumentName = Annotated[Word, AfterValidator(_argument_name)]
ToolName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{2,47}$"), AfterValidator(_tool_name)]
Bound = Annotated[float, Field(ge=-(2**53), le=2**53, allow_inf_nan=False)]


class Parameter(Part):
    """One argument of a declared tool: what of JSON Schema it may say."""

    LIMITS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "string": ("enum", "pattern", "minLength", "maxLength"),
        "integer": ("minimum", "maximum"),
        "number": ("minimum", "maximum"),
        "boolean": (),
    }

    type: Literal["string", "integer", "number", "boolean"] = "string"
    """What it is."""
    description: Annotated[str, Field(max_length=300), AfterValidator(_tool_text)]
    """What the model is told of it."""
    enum: Annotated[tuple[Line, ...], Field(max_length=30)] = ()
    """All that it may be, of a text."""
    pattern: Annotated[str, Field(max_length=200)] = ""
    """A regular expression that all of a text must match, in Rust's form (no look-around)."""
    minLength: Annotated[int, Field(ge=0, le=1000)] = 0
    """The least characters of a text."""
    maxLength: Annotated[int, Field(ge=1, le=1000)] = LONGEST
    """The most."""
    minimum: Bound | None = None
    """The least of a number."""
    maximum: Bound | None = None
    """The most."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        if value and (problem := pattern_problem(value)):
            raise ValueError(f"a regular expression ({problem})")
        return value

    @model_validator(mode="after")
    def _of_its_type(self) -> Self:
        for name in self.model_fields_set - {"type", "description", *self.LIMITS[self.type]}:
            raise ValueError(f"no {name}: type {self.type!r} has none")
        if self.minLength > self.maxLength:
            raise ValueError("minLength up to maxLength")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum up to maximum")
        return self


class Parameters(Part):
    """The arguments of a declared tool: a JSON schema of type `object`, without objects or lists in it."""

    type: Literal["object"] = "object"
    properties: Annotated[dict[ArgumentName, Parameter], Field(max_length=12)] = {}
    required: Annotated[tuple[str, ...], Field(max_length=12)] = ()
    """The names of those that a call must have."""
    additionalProperties: Literal[False] = False

    @model_validator(mode="after")
    def _there(self) -> Self:
        for name in self.required:
            if name not in self.properties:
                raise ValueError(f"required: names of properties; {name!r} is none")
        return self

    @property
    def as_schema(self) -> dict[str, Any]:
        """As a model is given it: what was not said is not there."""
        properties = {
            name: {"type": each.type, **each.model_dump(mode="json", exclude_unset=True, exclude={"type"})}
            for name, each in self.properties.items()
        }
        return {"type": "object", "properties": properties, "required": list(self.required)}


class AnswerField(Part):
    """One thing of a service's answer that the model sees."""

    name: Word
    """What the model knows it by."""
    at: Annotated[str, Field(max_length=200), AfterValidator(_pointer)]
    """Where it stands: a JSON pointer (RFC 6901), `/customer/name`; `*` in it stands for each item of a
    list: `/slots/*/time`, `/tags/*`. What is no text, number or boolean there is never shown."""
    max_chars: Annotated[int, Field(ge=1, le=1000)] = 120
    """The most characters of each text."""
    max_items: Annotated[int, Field(ge=1, le=20)] = 5
    """The most items of a list."""

    @property
    def most(self) -> int:
        """The most characters that the model can get of it."""
        return self.max_chars * (self.max_items if answers.EVERY in answers.steps(self.at) else 1)


class DeclaredTool(Part):
    """A tool that asks a system of the site's over HTTP. See docs/tools.md.

    In url, headers and body `{name}` stands for an argument, and `{visit}`, `{tenant}`, `{role}`, `{call}`
    (a UUID of this one call) and `{caller}` (the caller's number, where it is known) for what they say.
    """

    description: Annotated[str, Field(max_length=1000), AfterValidator(_tool_text)]
    """When the model is to call it, and what it answers."""
    roles: Annotated[tuple[Literal["visitor", "resident"], ...], Field(min_length=1, max_length=2)] = (
        "visitor",
    )
    """Whose model may call it."""
    parameters: Parameters = Parameters()
    """Its arguments: `parameters.properties.NAME` with type, description and limits, and
    `parameters.required`."""
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    """Of the one request that it makes."""
    url: str
    """Where to. Its host is always as it stands here; placeholders may stand in the path (required arguments
    alone) and in a query's values."""
    headers: Annotated[dict[str, str], Field(max_length=20)] = {}
    """Further ones; they may hold placeholders."""
    headers_env: Annotated[dict[str, EnvName], Field(max_length=10)] = {}
    """Headers whose whole value is a secret: the variable that holds it."""
    body: dict[str, Any] = {}
    """What is sent as JSON; its texts may hold placeholders. Empty: nothing is sent."""
    signing_secret_env: EnvName | None = None
    """The variable with the key that requests are signed with, as Standard Webhooks has it: base64, with or
    without `whsec_`. Not set: they are not."""
    answer: Annotated[tuple[AnswerField, ...], Field(max_length=20)] = ()
    """What of the answer the model sees, a table each: `name`, `at`, `max_chars`, `max_items`. The rest of it
    is thrown away. None: the model learns no more than whether it was done."""
    timeout_s: Annotated[float, Field(gt=0, le=TOOL_TIMEOUT_S)] = 4.0
    """For everything, further tries included."""
    retries: Annotated[int, Field(ge=0, le=2)] = 0
    """Further tries where the service can't be reached or is not well (502, 503, 504). For GET, PUT and
    DELETE alone: a POST or PATCH could be done twice."""
    cache_s: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """How long an answer to the same request is used again. For GET alone. 0: never."""
    calls_per_visit: Annotated[int, Field(ge=1, le=20)] = 5
    """How often one visit may call it."""
    private_network: bool = False
    """Whether its host may have an address of this machine or of the site's own network, and plain http://."""
    ca_file: FilePath | None = None
    """The certificate of a service that signs its own."""

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Where it connects to."""
        parts = urllib.parse.urlsplit(self.url)
        return _host_of(self.url), parts.port or (443 if parts.scheme == "https" else 80)

    @field_validator("url")
    @classmethod
    def _url(cls, value: str, info: ValidationInfo) -> str:
        if (parameters := info.data.get("parameters")) is not None:  # else those are wrong, and it is said
            template.check_url(value, parameters.properties, parameters.required)
        return value

    @field_validator("headers")
    @classmethod
    def _headers(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if (parameters := info.data.get("parameters")) is not None:
            for name, text in value.items():
                template.check_header(name, text, parameters.properties)
        return value

    @field_validator("headers_env")
    @classmethod
    def _header_names(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            template.check_header_name(name)
        return value

    @field_validator("body")
    @classmethod
    def _body(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if (parameters := info.data.get("parameters")) is not None:
            template.check_body(value, parameters.properties)
        return value

    @model_validator(mode="after")
    def _fits_its_url(self) -> Self:
        if self.url.startswith("http://") and not self.private_network:
            raise ValueError("url with https://, or private_network = true for a service of the site's own")
        names = [name.lower() for name in (*self.headers, *self.headers_env)]
        if len(names) != len(set(names)):
            raise ValueError("each header once")
        return self

    @model_validator(mode="after")
    def _method_fits(self) -> Self:
        if self.body and self.method in ("GET", "DELETE"):
            raise ValueError(f"no body: {self.method} has none")
        if self.retries and self.method in ("POST", "PATCH"):
            raise ValueError(f"no retries: a {self.method} that is sent again may be done twice")
        if self.cache_s and self.method != "GET":
            raise ValueError("no cache_s: only what GET brings is kept")
        names = [each.name for each in self.answer]
        if len(names) != len(set(names)):
            raise ValueError("each name of answer once")
        if sum(each.most for each in self.answer) > MOST_OF_ANSWER:
            raise ValueError(f"answer of up to {MOST_OF_ANSWER} characters over all of its fields")
        return self


Money = Annotated[Decimal, Field(gt=0, le=1_000_000, allow_inf_nan=False)]


class Cost(Part):
    """What visits cost, and what they may. See docs/costs.md."""

    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = "USD"
    """What the tenant counts in: `BRL`."""
    per_usd: Money = Decimal(1)
    """How much of it a US dollar is, which the prices are in. Must be given for another currency."""
    daily_budget: Money | None = None
    """Once so much is spent on a day, by the tenant's time zone, new visitors are not talked with until the
    next: they get the attendant, where there is one. Not set: no limit."""
    monthly_budget: Money | None = None
    """The same for a calendar month."""
    prices: dict[str, dict[str, Price]] = {}
    """Own prices, in US dollars, by provider and model, as data/prices.toml has them:
    `[tenants.NAME.cost.prices.azure-openai."my-deployment"]`, `audio_in = 32`."""

    @model_validator(mode="after")
    def _rate_there(self) -> Self:
        if self.currency == "USD" and self.per_usd != 1:
            raise ValueError("per_usd = 1 for USD; or another currency")
        if self.currency != "USD" and "per_usd" not in self.model_fields_set:
            raise ValueError(f"per_usd as well: how much {self.currency} a US dollar is")
        return self

    @property
    def in_currency(self) -> Currency:
        """The two together."""
        return Currency(self.currency, self.per_usd)

    @property
    def has_budget(self) -> bool:
        """Whether there is any."""
        return self.daily_budget is not None or self.monthly_budget is not None


class Vad(Part):
    """When the local voice detector says that a caller speaks."""

    threshold: Threshold = 0.5
    """How sure it must be."""
    min_speech_ms: Milliseconds = 64
    """Shorter noises do not interrupt what is being played. The detector's window is 32 ms."""
    hangover_ms: Annotated[int, Field(ge=100, le=2000)] = 450
    """So long it must be quiet before a caller counts as silent."""


class Echo(Part):
    """What comes back of our own voice, and must not be taken for a caller."""

    mode: Literal["none", "guard", "aec3"] = "guard"
    """`guard`: our echo is predicted from what we played, and only what is louder than the rest of it
    interrupts us. `aec3`: the same behind WebRTC's echo canceller, which needs the extra `aec3`; see
    `porteiro bench --hearing`. `none`: for lines that are known to have no echo."""
    gate_uplink: bool = True
    """Unless it is `none`: while we talk and the caller doesn't, the model hears silence, not our echo. Who
    begins to speak is heard from 400 ms before that."""
    assumed_gain_db: Annotated[float, Field(ge=-40, le=12)] = 0.0
    """How loud the echo is taken to be beside what we play, in a call's first second, before it is known."""
    margin_db: Annotated[float, Field(ge=0, le=24)] = 9.0
    """By how much a caller must be louder than what is left of our echo to interrupt us."""


class TurnDetection(Part):
    """When a caller's turn counts as ended: the fields of OpenAI's `server_vad` and `semantic_vad`."""

    kind: Literal["", "server_vad", "semantic_vad", "local"] = ""
    """`server_vad`: by silence alone. `semantic_vad`: by what is said as well. `local`: by our own VAD
    (`vad`), and nothing is sent or paid for while nobody speaks; gemini has no other. Empty:
    `semantic_vad` for azure-voicelive, `server_vad` for the other providers that detect turns. Providers
    `local` and `pipeline` have no `semantic_vad`."""
    eagerness: Literal["auto", "low", "medium", "high"] = "auto"
    """With openai's `semantic_vad`: how soon a turn is taken to be over."""

    threshold: Threshold = 0.5
    """How sure the provider must be that somebody speaks."""
    silence_duration_ms: Annotated[int, Field(ge=100, le=5000)] = 600
    """So long a pause ends a turn."""
    prefix_padding_ms: Milliseconds = 300
    """How much sound from before the turn belongs to it."""


OWN_TURNS = frozenset({"openai-live", "elevenlabs"})
"""Providers whose model decides by itself when it is whose turn."""

EVERY_FACT: tuple[Fact, ...] = ("visitor_name", "apartment", "resident")


def _facts(value: dict[Intent, tuple[Fact, ...]]) -> dict[Intent, tuple[Fact, ...]]:
    for intent, facts in value.items():
        if "apartment" not in facts:
            raise ValueError(f"{intent} must name apartment: without it nobody can be called")
    return value


class PipelinePart(Part):
    """One stage of a pipeline."""

    PARTS: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """What each kind has beside itself; a `!` before what must be given."""

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        kind = self.model_dump(include={"kind"})["kind"]
        allowed = [name.removeprefix("!") for name in self.PARTS[kind]]
        for name, field in type(self).model_fields.items():
            if name not in ("kind", *allowed) and getattr(self, name) != field.default:
                raise ValueError(f"no {name}: kind {kind!r} has none")
        for name in self.PARTS[kind]:
            if name.startswith("!") and not getattr(self, name[1:]):
                raise ValueError(f"{name[1:]} as well: kind {kind!r} needs it")
        return self


class PipelineRecognition(PipelinePart):
    """Speech to text."""

    PARTS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "whisper": (),
        "deepgram": ("base_url", "model", "key_env", "encoding"),
    }

    kind: RecognitionKind = "whisper"
    """`whisper`: in the service, without a key. `deepgram`: Deepgram's streaming recognition; only what
    callers say is sent there, not the silence."""
    base_url: OptionalUrl = ""
    """Of Deepgram's API. Empty: `https://api.deepgram.com`."""
    model: str = ""
    """Empty: `nova-3`."""
    key_env: EnvName | None = None
    """The environment variable that holds the key. Default for deepgram: DEEPGRAM_API_KEY."""
    encoding: Encoding = "linear16"
    """How sound is sent: 16 kHz PCM, or the telephone's own µ-law, a quarter of it."""


class PipelineDialogue(PipelinePart):
    """What talks."""

    PARTS: ClassVar[Mapping[str, tuple[str, ...]]] = {"rules": (), "chat": ("!model", "base_url", "key_env")}

    kind: DialogueKind = "rules"
    """`rules`: the built-in dialogue, without a language model. `chat`: a language model behind the chat
    completions protocol, with tools and streaming, as OpenAI, Groq, vLLM and llama.cpp have it."""
    base_url: OptionalUrl = ""
    """What `/chat/completions` is below. Empty: OpenAI's, `https://api.openai.com/v1`. Groq:
    `https://api.groq.com/openai/v1`."""
    model: str = ""
    """As the server names it. Must be given for `chat`."""
    key_env: EnvName | None = None
    """The environment variable that holds the key. Default at OpenAI: OPENAI_API_KEY; elsewhere: no key."""


class PipelineSpeech(PipelinePart):
    """Text to speech."""

    PARTS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "espeak": (),
        "piper": ("!piper_voice",),
        "deepgram": ("!voice", "base_url", "key_env"),
        "openai": ("!model", "!voice", "base_url", "key_env"),
    }

    kind: SpeechKind = "espeak"
    """`espeak` and `piper`: in the service, without a key. `deepgram`: Deepgram's `/v1/speak`. `openai`: the
    `/audio/speech` of OpenAI or of a server that has the same."""
    base_url: OptionalUrl = ""
    """Of the service. Empty: OpenAI's `https://api.openai.com/v1`, or `https://api.deepgram.com`."""
    model: str = ""
    """OpenAI's, such as `gpt-4o-mini-tts`. Must be given for `openai`."""
    voice: str = ""
    """As the service names it. Must be given for `openai` (`coral`) and `deepgram` (`aura-2-…`)."""
    piper_voice: FilePath | None = None
    """A piper voice (`….onnx` beside its `….onnx.json`). Must be given for `piper`."""
    key_env: EnvName | None = None
    """The environment variable that holds the key. Default for deepgram: DEEPGRAM_API_KEY, at OpenAI:
    OPENAI_API_KEY; elsewhere: no key."""


class Pipeline(Part):
    """The parts of provider `pipeline`."""

    recognition: PipelineRecognition = PipelineRecognition()
    dialogue: PipelineDialogue = PipelineDialogue()
    speech: PipelineSpeech = PipelineSpeech()

    @property
    def key_variables(self) -> tuple[tuple[str, str], ...]:
        """(setting, variable) of each key."""
        variables = []
        for name, part in (
            ("recognition", self.recognition),
            ("dialogue", self.dialogue),
            ("speech", self.speech),
        ):
            usual = None
            if part.kind == "deepgram":
                usual = "DEEPGRAM_API_KEY"
            elif part.kind in ("chat", "openai") and not part.base_url:
                usual = "OPENAI_API_KEY"
            if variable := part.key_env or usual:
                variables.append((f"pipeline.{name}.key_env", variable))
        return tuple(variables)


class Fallback(Part):
    """A provider that takes over from the tenant's own. What is not here the two have in common."""

    provider: ProviderName
    """As the tenant's own."""
    model: str = ""
    """Empty: the provider's default, where it has one."""
    voice: str = ""
    """Empty: the provider's default. The tenant's own voice is another provider's."""
    backend_model: str = ""
    """For openai-live."""
    base_url: OptionalUrl = ""
    """Empty: the provider's own, where it has one."""
    provider_format: FormatName | None = None
    """Not set: what fits the provider best."""
    api_key_env: EnvName | None = None
    """The environment variable that holds the key. Not set: the provider's usual one."""
    token_file: FilePath | None = None
    """For Azure, in place of a key."""

    @model_validator(mode="after")
    def _provider_there(self) -> Self:
        _check_account(self)
        return self

    @property
    def key_variable(self) -> str | None:
        """The environment variable with the provider's key; None where none is needed."""
        return _key_variable(self)


def _key_variable(account: Tenant | Fallback) -> str | None:
    if account.api_key_env is not None:
        return account.api_key_env
    return (TERMS[account.provider].key_variable or None) if account.token_file is None else None


def _check_account(account: Tenant | Fallback) -> None:
    """Whether what is said of a provider is what it asks for.

    Raises:
        ValueError: what is allowed.
    """
    terms, name = TERMS[account.provider], account.provider
    if account.token_file is not None and not terms.token:
        raise ValueError(f"no token_file: provider {name!r} takes a key alone")
    if account.token_file is not None and account.api_key_env is not None:
        raise ValueError("api_key_env or token_file, and not both")
    if account.provider_format is not None and account.provider_format not in terms.formats:
        formats = " or ".join(terms.formats)
        raise ValueError(f"provider_format {formats}: provider {name!r} has no {account.provider_format!r}")
    if name == "pipeline":
        for field in ("base_url", "model", "voice", "api_key_env"):
            if getattr(account, field):
                raise ValueError(f"no {field}: of provider 'pipeline' each part has its own")
    for needed in () if embedded(account) else terms.needs:
        if needed != "api_key" and not getattr(account, needed):  # the key is in the environment
            raise ValueError(f"{needed} as well: provider {name!r} needs it")


def embedded(account: Tenant | Fallback) -> bool:
    """Its sessions are with the model server that runs with the service."""
    return account.provider == "pipeline" or (account.provider == "local" and not account.base_url)


class Tenant(Part):
    """One condominium, or one reception."""

    id: TenantId
    """The name of its table: `[tenants.jardim]`."""
    kind: Literal["condominium", "reception"] = "condominium"
    """`condominium`: residents let visitors in. `reception`: an office's telephone, without apartments,
    residents and a gate; callers are put through, and helped with the tools that the tenant declares. See
    docs/tools.md."""
    name: Line = ""
    """How it is spoken of. Empty: the id. The sentences say "da portaria do NAME", so it begins with a
    masculine word: "Condomínio …", "Edifício …"."""
    directory: FilePath | None = None
    """JSON: its apartments and residents. See docs/import.md. Not set: they are in the database."""
    language: Literal["pt-BR"] = "pt-BR"
    """What is spoken."""
    timezone: str = "America/Sao_Paulo"
    """For the times of day that people are shown and told."""
    visitor_port: Port
    """Where the PBX sends visitors. Default: service.visitor_port."""
    resident_port: Port
    """Where the PBX sends residents. Default: service.resident_port."""
    numbers: Numbers = ()
    """The numbers that visitors dial here, as the PBX says them: a call that is registered without `tenant`
    is this tenant's by them. No two tenants share one."""
    registration: Literal["optional", "required"] = "optional"
    """`required`: a visitor's call is taken only if it was registered over HTTP before it came, for this
    tenant."""
    websocket_username_env: EnvName | None = None
    """The environment variable that holds the user which the PBX's WebSocket connections must name. Not set:
    its address is enough."""
    websocket_password_env: EnvName | None = None
    """The environment variable that holds the password. Together with websocket_username_env."""
    provider: ProviderName = "local"
    """Whose voice model talks: `local` runs in the service and needs no key; `pipeline` is the same with
    parts of your choice, which stand below `pipeline`. See docs/providers.md."""
    model: str = ""
    """Empty: the provider's default. Must be given for Azure: the deployment's name, or for
    azure-voicelive the model's; and for elevenlabs: the agent's id."""
    voice: str = ""
    """Empty: the provider's default. For elevenlabs a voice's id; empty: the agent's own."""
    backend_model: str = ""
    """For openai-live: the model that calls the tools, to which the voice delegates. Empty: the provider's
    default."""
    base_url: OptionalUrl = ""
    """Another server that speaks the provider's protocol. Empty: the provider's own. For Azure the
    resource's, which must be given: `https://NAME.openai.azure.com`, or for azure-voicelive
    `https://NAME.services.ai.azure.com`."""
    audio_message_ms: Annotated[int, Field(ge=20, le=200)] = 40
    """How much of a caller's audio goes to the provider at once: less comes sooner, more costs less. A
    process that carries 64 legs, or whose ticks come late, takes 60 ms if this is less."""
    provider_format: FormatName | None = None
    """How a caller's and the model's audio go over the wire: PCM at 24 kHz, or the telephone's own G.711
    (`pcmu`: µ-law, `pcma`: A-law), which needs no resampling here and a sixth of the network. Not set: what
    fits the provider best, `pcm24` for local, pipeline, openai, openai-live and azure-openai, `pcm8` for
    azure-voicelive, `pcm16` for gemini, `pcmu` for elevenlabs, whose agent has the last word. Which ones a
    provider has is in docs/providers.md."""
    api_key_env: EnvName | None = None
    """The environment variable that holds the key. Default for openai and openai-live: OPENAI_API_KEY, for
    azure-openai: AZURE_OPENAI_API_KEY, for azure-voicelive: AZURE_VOICELIVE_API_KEY, for gemini:
    GEMINI_API_KEY, for elevenlabs: ELEVENLABS_API_KEY."""
    token_file: FilePath | None = None
    """For Azure, in place of a key: a file with an Entra access token, which is read anew for each call.
    Whoever renews the token writes it there."""
    noise_suppression: bool = True
    """The provider takes noise out of a caller's audio before it listens, where it can."""
    echo_cancellation: bool = True
    """The provider takes our echo out of a caller's audio, where it can (azure-voicelive)."""
    interim_texts: Annotated[tuple[str, ...], Field(max_length=10)] = ()
    """One of these sentences is said where a reply takes longer than two seconds, for instance "Um instante."
    Only azure-voicelive does that, with Azure's voices and a model that is not a realtime one."""
    fallback: Annotated[tuple[Fallback, ...], Field(max_length=5)] = ()
    """Providers that take over, in this order, where the one above can't be reached, refuses, stalls or
    breaks down: each a table of its own, `[[tenants.jardim.fallback]]`. A conversation goes on with them."""
    greeting: Sentence | None = None
    """In place of the usual first sentence; `{condominio}` in it is the house's name."""
    goodbye: Sentence | None = None
    """In place of the usual last sentence to a visitor who was let in: the short way to say
    `goodbyes.authorized`."""
    goodbyes: Goodbyes = Goodbyes()
    hold_audio: HoldAudio = HoldAudio()
    prompt_extra: Annotated[str, AfterValidator(_rules)] = ""
    """Told to the model beside the prompt: the house's own rules."""
    required: Annotated[dict[Intent, tuple[Fact, ...]], AfterValidator(_facts)] = {
        Intent.VISIT: EVERY_FACT,
        Intent.DELIVERY: ("apartment",),
        Intent.SERVICE: ("visitor_name", "apartment"),
    }
    """What must be known before a resident is called, by what the visitor wants. The rest is asked for, and
    done without where the visitor can't say: a courier may know the number alone; the resident decides."""
    recording: Recording = Recording()
    retention: Retention = Retention()
    limits: Limits = Limits()
    consent: Consent = Consent()
    gate: Gate = RecordGate()
    dialer: Dialer = PlainDialer()
    freeswitch: Freeswitch | None = None
    attendant: Attendant | None = None
    departments: Annotated[
        dict[Annotated[str, AfterValidator(_department)], Department], Field(max_length=50)
    ] = {}
    """Where callers are put through to by name: `[tenants.jardim.departments."Recursos humanos"]`, with
    `extension`, and in `also` what else people call it. Needs what the attendant needs."""
    extensions: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=r"^[0-9X*#]{1,10}$")], ...],
        BeforeValidator(_split),
        Field(max_length=50),
    ] = ()
    """Extensions, beside the departments' own, that callers are put through to by number; X is any digit:
    `["2XX"]`."""
    manager: Manager | None = None
    esl: Esl | None = None
    tools: Annotated[dict[ToolName, DeclaredTool], Field(max_length=20)] = {}
    """What the models may call beside Porteiro's own tools: `[tenants.jardim.tools.NAME]`, a table each, as
    below. See docs/tools.md."""
    webhooks: Webhooks | None = None
    pipeline: Pipeline = Pipeline()
    cost: Cost = Cost()
    backchannels: Literal["pause", "stop"] = "pause"
    """What a short sound of a caller's ("ahã", "tá") does while the doorman talks. `pause`: he is silent at
    once and goes on when it was no more than that; words that are a turn interrupt him, a resident's "não"
    first of all. `stop`: whatever is heard interrupts him, and he answers it; a resident who says "ahã" then
    hears the briefing twice."""
    vad: Vad = Vad()
    echo: Echo = Echo()
    turn_detection: TurnDetection = TurnDetection()

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("a time zone's name, such as America/Sao_Paulo") from None
        return value

    @model_validator(mode="after")
    def _websocket_pair(self) -> Self:
        if (self.websocket_username_env is None) != (self.websocket_password_env is None):
            raise ValueError("websocket_username_env and websocket_password_env go together")
        return self

    @property
    def tables_that_need_a_channel(self) -> tuple[str, ...]:
        """What works through the PBX, and so on calls whose channel is known alone."""
        gate = ("gate",) if isinstance(self.gate, DtmfGate) else ()
        return gate + tuple(
            table for table in ("attendant", "departments", "extensions") if getattr(self, table)
        )

    @model_validator(mode="after")
    def _manager_there(self) -> Self:
        needed = "manager.password_env as well: the Asterisk Manager"
        other = "; with FreeSWITCH: esl.password_env"
        if isinstance(self.gate, DtmfGate) and self.manager is None and self.esl is None:
            raise ValueError(f"{needed} plays the digits of a gate of kind dtmf{other}")
        if self.attendant is not None and self.attendant.announce and not (self.esl and self.esl.sounds):
            found = "for attendant.announce = true esl.sounds as well: FreeSWITCH plays the announcement"
            raise ValueError(f"{found} from there; with Asterisk alone announce = false")
        if self.attendant is not None and self.manager is None and self.esl is None:
            raise ValueError(f"{needed} tells the dialplan to ring the attendant{other}")
        if (self.departments or self.extensions) and self.manager is None and self.esl is None:
            raise ValueError(f"{needed} tells the dialplan whom to put callers through to{other}")
        return self

    @model_validator(mode="after")
    def _switch_there(self) -> Self:
        if self.esl is not None and self.freeswitch is None:
            raise ValueError("freeswitch.domain_uuid as well: esl acts on the calls that FreeSWITCH streams")
        if self.freeswitch and self.freeswitch.playback == "file" and not (self.esl and self.esl.sounds):
            raise ValueError("esl.sounds as well: playback 'file' has FreeSWITCH play files from there")
        if isinstance(self.dialer, FreeswitchDialer) and self.esl is None:
            raise ValueError("esl.password_env as well: over it a dialer of kind freeswitch calls people")
        if self.esl is not None and self.manager is None:
            people = {name: one.extension for name, one in self.departments.items()}
            if self.attendant is not None:
                people["attendant"] = self.attendant.extension
            for where, extension in people.items():
                if not re.fullmatch(EXTENSION, extension):
                    found = f"another extension of {where} than {extension!r}"
                    raise ValueError(f"{found}: FreeSWITCH's dialplan has extensions, such as 9000")
        return self

    @model_validator(mode="after")
    def _a_reception_lets_nobody_in(self) -> Self:
        if self.kind != "reception":
            return self
        if not isinstance(self.gate, RecordGate):
            raise ValueError("no gate: a tenant of kind 'reception' opens nothing")
        if self.directory is not None:
            raise ValueError("no directory: a tenant of kind 'reception' has no apartments")
        if not isinstance(self.dialer, PlainDialer):
            raise ValueError("no dialer: a tenant of kind 'reception' calls no residents")
        ruled = [account.provider for _, account in self.accounts if account.provider == "local"]
        if ruled or (self.has_pipeline and self.pipeline.dialogue.kind == "rules"):
            raise ValueError(
                "for a tenant of kind 'reception' a provider with a language model: the built-in dialogue of "
                "'local', and of 'pipeline' with dialogue.kind 'rules', knows condominiums alone"
            )
        return self

    @model_validator(mode="after")
    def _provider_there(self) -> Self:
        _check_account(self)
        if self.interim_texts and self.provider != "azure-voicelive":
            raise ValueError("interim_texts for provider 'azure-voicelive' alone")
        if self.turn_detection.kind == "semantic_vad" and self.provider in ("local", "pipeline"):
            found = f"provider {self.provider!r} has no other"
            raise ValueError(f"turn_detection.kind 'server_vad' or 'local': {found}")
        if self.turn_detection.kind not in ("", "local") and self.provider == "gemini":
            raise ValueError("turn_detection.kind 'local', or none: provider 'gemini' has no other")
        if self.turn_detection.kind == "local" and self.provider in OWN_TURNS:
            raise ValueError(f"no turn_detection.kind 'local': {self.provider!r} has turns of its own")
        if self.pipeline != Pipeline() and not self.has_pipeline:
            raise ValueError("pipeline for provider 'pipeline' alone")
        return self

    @model_validator(mode="after")
    def _one_goodbye(self) -> Self:
        if self.goodbye is not None and self.goodbyes.authorized is not None:
            raise ValueError("goodbye or goodbyes.authorized, not both")
        return self

    @property
    def own_goodbyes(self) -> dict[Outcome, str]:
        """What a visitor hears last, by how the visit ended, where the house says it otherwise than we do."""
        own = {outcome: getattr(self.goodbyes, outcome.value) for outcome in Outcome}
        if self.goodbye is not None:
            own[Outcome.AUTHORIZED] = self.goodbye
        return {outcome: text for outcome, text in own.items() if text is not None}

    @property
    def has_pipeline(self) -> bool:
        """Whether sessions of its may have the parts that stand below `pipeline`."""
        return any(account.provider == "pipeline" for _, account in self.accounts)

    @property
    def title(self) -> str:
        """The name, or the id where there is none."""
        return self.name or self.id

    @property
    def key_variable(self) -> str | None:
        """The environment variable with the provider's key; None where none is needed."""
        return _key_variable(self)

    @property
    def accounts(self) -> tuple[tuple[str, Tenant | Fallback], ...]:
        """(where it is set, below the tenant's table) of the provider and of those that take over from it."""
        return (("", self), *((f"fallback.{n}.", each) for n, each in enumerate(self.fallback)))

    @property
    def amqp_parts(self) -> tuple[tuple[str, AmqpDialer | AmqpGate], ...]:
        """(table, settings) of what works through a RabbitMQ."""
        parts = (("dialer", self.dialer), ("gate", self.gate))
        return tuple((table, part) for table, part in parts if isinstance(part, AmqpDialer | AmqpGate))

    @property
    def secret_variables(self) -> tuple[tuple[str, str], ...]:
        """(setting, variable) of every secret that this tenant needs from the environment."""
        needed = [
            *((f"{where}api_key_env", account.key_variable) for where, account in self.accounts),
            ("websocket_username_env", self.websocket_username_env),
            ("websocket_password_env", self.websocket_password_env),
        ]
        if self.freeswitch is not None:
            needed.append(("freeswitch.token_env", self.freeswitch.token_env))
        if isinstance(self.gate, HttpGate):
            needed += [
                ("gate.auth.username_env", self.gate.auth.username_env),
                ("gate.auth.password_env", self.gate.auth.password_env),
                *((f"gate.headers_env.{name}", variable) for name, variable in self.gate.headers_env.items()),
            ]
        if isinstance(self.dialer, AriDialer):
            needed.append(("dialer.password_env", self.dialer.password_env))
        if self.manager is not None:
            needed.append(("manager.password_env", self.manager.password_env))
        if self.esl is not None:
            needed.append(("esl.password_env", self.esl.password_env))
        if self.webhooks is not None:
            needed.append(("webhooks.secret_env", self.webhooks.secret_env))
        needed += [(f"{table}.url_env", part.url_env) for table, part in self.amqp_parts]
        for name, tool in self.tools.items():
            needed.append((f"tools.{name}.signing_secret_env", tool.signing_secret_env))
            needed += [
                (f"tools.{name}.headers_env.{header}", variable)
                for header, variable in tool.headers_env.items()
            ]
        if self.has_pipeline:
            needed += self.pipeline.key_variables
        return tuple((setting, variable) for setting, variable in needed if variable)


# --------------------------------------------------------------------------------------------------------
# The whole
# --------------------------------------------------------------------------------------------------------


class Settings(Part):
    """Everything. Made by :func:`load` or, in tests and the demo, by :func:`build`."""

    service: Service = Service()
    tenants: dict[TenantId, Tenant] = {}

    _environ: Mapping[str, str] = PrivateAttr(default_factory=dict)
    _source: str = PrivateAttr(default="")
    _written: Written = PrivateAttr(default_factory=lambda: Written({}))

    @model_validator(mode="before")
    @classmethod
    def _fill_tenants(cls, data: Any) -> Any:
        """Give each tenant its id, and the service's ports where it names none."""
        if not isinstance(data, dict):
            return data
        # Never the default object: its relative paths would not start from the settings' own directory.
        data = {"service": {}, **data}
        if not isinstance(data.get("tenants"), dict):
            return data
        defaults = default_ports(data["service"])
        filled = {
            name: {**defaults, "id": name, **tenant} if isinstance(tenant, dict) else tenant
            for name, tenant in data["tenants"].items()
        }
        return {**data, "tenants": filled}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        clashes = [line for _, line in clashes_among(self.service, self.tenants)]
        if clashes:
            # Lines, each with its own path: settings_problems takes them apart again.
            raise ValueError("\n".join(clashes))
        return self

    def secret(self, variable: str | None) -> str | None:
        """The value of an environment variable that a setting names; None where it is unset or empty."""
        return (self._environ.get(variable) or None) if variable else None

    @property
    def database(self) -> Database:
        """Where the audit log is."""
        service = self.service
        if (file := service.database_path) is not None:
            return Database(file=file)
        return database_of(service.database_url or "", self.secret(service.database_password_env))

    @property
    def needs_local_parts(self) -> bool:
        """Whether the embedded model server is to have sessions which are no pipeline's."""
        accounts = [account for tenant in self.tenants.values() for _, account in tenant.accounts]
        return any(account.provider == "local" and embedded(account) for account in accounts)

    def with_workers(self, workers: int) -> Settings:
        """The same with another number of workers.

        Raises:
            SettingsError: there can't be so many.
        """
        try:
            service = Service.model_validate({**dict(self.service), "workers": workers})
        except ValidationError as error:
            raise SettingsError([f"service.{line}" for line in problems_of(error, Service, {})]) from None
        return self.model_copy(update={"service": service})

    def with_tenants(self, tenants: Mapping[str, Tenant], environ: Mapping[str, str]) -> Settings:
        """The same for other tenants, which are taken as they are, and with other secrets."""
        settings = self.model_copy(update={"tenants": dict(tenants)})
        settings._environ = dict(environ)
        return settings

    @property
    def source(self) -> str:
        """Where these settings were read from, for people."""
        return self._source

    @property
    def written(self) -> Written:
        """What they were made of."""
        return self._written

    def problems_at_start(self) -> list[str]:
        """What keeps the service from starting although the settings are well formed: files, keys, rights."""
        return disk_problems(self)


def default_ports(service: Any) -> dict[str, Any]:
    """The ports of a tenant that names none, out of the table `[service]` as it is written."""
    table = service if isinstance(service, Mapping) else {}
    return {
        "visitor_port": table.get("visitor_port", DEFAULT_VISITOR_PORT),
        "resident_port": table.get("resident_port", DEFAULT_RESIDENT_PORT),
    }


def clashes_among(service: Service, tenants: Mapping[str, Tenant]) -> list[tuple[str, str]]:
    """What tenants have against each other and against the service: (the later one's id, the problem).

    The id is "" where the service's own ports clash.
    """
    owners: dict[int, str] = {}
    clashes: list[tuple[str, str]] = []
    http_port = service.http_port if service.http_on else None
    ports = (
        ("websocket_port", service.websocket_port),
        ("audio_stream_port", service.audio_stream_port),
        ("http_port", http_port),
    )
    for setting, port in ports:
        if port and port in owners:
            clashes.append(
                ("", f"service.{setting}: found {port}, which {owners[port]} has; allowed: another port")
            )
        elif port:
            owners[port] = f"service.{setting}"
    clashes += _registration_clashes(service, tenants)
    clashes += _domain_clashes(service, tenants)
    clashes += _tool_clashes(tenants)
    clashes += _webhook_clashes(tenants)
    for name, tenant in tenants.items():
        if tenant.id != name:
            clashes.append((name, f"tenants.{name}.id: found {tenant.id!r}; allowed: leave it out"))
        for role in ("visitor_port", "resident_port"):
            port = getattr(tenant, role)
            setting = f"tenants.{name}.{role}"
            if port and port in owners:
                clashes.append(
                    (name, f"{setting}: found {port}, which {owners[port]} has; allowed: another port")
                )
            owners.setdefault(port, setting)
    return clashes


def _registration_clashes(service: Service, tenants: Mapping[str, Tenant]) -> list[tuple[str, str]]:
    """What keeps calls from being registered for their tenant."""
    clashes = []
    owners: dict[str, str] = {}
    for name, tenant in tenants.items():
        for number in tenant.numbers:
            if owners.setdefault(number, name) != name:
                found = f"found {number!r}, which tenants.{owners[number]} has"
                allowed = "allowed: a number that is one tenant's alone"
                clashes.append((name, f"tenants.{name}.numbers: {found}; {allowed}"))
        if tenant.registration == "required" and not service.http_on:
            found = "found 'required', and no service.http_listen where a call could be registered"
            clashes.append(
                (name, f"tenants.{name}.registration: {found}; allowed: set an address, or 'optional'")
            )
    return clashes


def _domain_clashes(service: Service, tenants: Mapping[str, Tenant]) -> list[tuple[str, str]]:
    """What keeps FreeSWITCH's streams from finding their tenant, or lets everybody's in."""
    clashes = []
    owners: dict[str, str] = {}
    everybody = any(ipaddress.ip_network(peers).prefixlen == 0 for peers in service.allowed_peers)
    for name, tenant in tenants.items():
        if tenant.freeswitch is None:
            continue
        uuid, table = tenant.freeswitch.domain_uuid, f"tenants.{name}.freeswitch"
        if owners.setdefault(uuid, name) != name:
            found = f"found {uuid}, which tenants.{owners[uuid]} has"
            clashes.append((name, f"{table}.domain_uuid: {found}; allowed: another domain"))
        if everybody and tenant.freeswitch.token_env is None:
            found = "found none, and service.allowed_peers lets everybody in"
            clashes.append((name, f"{table}.token_env: {found}; allowed: a token, or your FreeSWITCH alone"))
        elif service.http_proxies and tenant.freeswitch.token_env is None:
            found = "found none, and everybody whom service.http_proxies pass on has their address"
            clashes.append((name, f"{table}.token_env: {found}; allowed: a token"))
    return clashes


def _tool_clashes(tenants: Mapping[str, Tenant]) -> list[tuple[str, str]]:
    """Declared tools that would speak to what moves a gate: that is the gate's alone, with all its rules."""
    gates = {
        _host_of(tenant.gate.url): name
        for name, tenant in tenants.items()
        if isinstance(tenant.gate, HttpGate)
    }
    clashes = []
    for name, tenant in tenants.items():
        for tool, declared in tenant.tools.items():
            if (host := declared.host_and_port[0]) in gates:
                found = f"found {host}, where tenants.{gates[host]}.gate is"
                clashes.append((name, f"tenants.{name}.tools.{tool}.url: {found}; allowed: another host"))
    return clashes


def _webhook_clashes(tenants: Mapping[str, Tenant]) -> list[tuple[str, str]]:
    """Events that would go to what opens a gate, which might take them for its order."""
    gates = {
        _place_of(tenant.gate.url): name
        for name, tenant in tenants.items()
        if isinstance(tenant.gate, HttpGate)
    }
    clashes = []
    for name, tenant in tenants.items():
        if tenant.webhooks is not None and (place := _place_of(tenant.webhooks.url)) in gates:
            found = f"found what tenants.{gates[place]}.gate opens by"
            clashes.append((name, f"tenants.{name}.webhooks.url: {found}; allowed: another path"))
    return clashes


def _place_of(url: str) -> tuple[str, int, str]:
    """Host, port and path of a URL, the same however they are written."""
    parts = urllib.parse.urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return _host_of(url), port, parts.path or "/"


@dataclass(frozen=True, slots=True)
class Written:
    """Settings as they are written, unchecked."""

    tree: Mapping[str, Any]
    origins: Mapping[str, str] = dataclass_field(default_factory=dict)
    """By dotted path: the variable or the fragment that it comes from, where it is not the file."""
    source: str = ""
    """Where they were read, for people."""
    base: Path = dataclass_field(default_factory=Path.cwd)
    """Where relative paths begin."""
    environ: Mapping[str, str] = dataclass_field(default_factory=dict, repr=False)
    file: Path | None = None
    """The settings file, which need not be there; None: no file is read."""
    dotenv: bool = False
    """Whether the environment is this process's, and beneath it the `.env` beside the file."""

    def kept_in(self, tenant: str) -> str:
        """The file that a tenant's table is in."""
        return self.origins.get(f"tenants.{tenant}", self.source)

    def checked(self) -> Settings:
        """The settings.

        Raises:
            SettingsError: with every problem there is.
        """
        return self._checked(self.tree)

    def one(self, name: str, table: Mapping[str, Any], service: Service) -> Tenant:
        """One tenant by itself.

        Args:
            table: what `[tenants.NAME]` holds, with the ports.
            service: what holds for the whole process.

        Raises:
            SettingsError: with every problem there is.
        """
        problems = found_secrets(table, f"tenants.{name}")
        return self._checked({"service": service, "tenants": {name: dict(table)}}, problems).tenants[name]

    def _checked(self, tree: Mapping[str, Any], problems: Sequence[str] | None = None) -> Settings:
        problems = list(found_secrets(tree) if problems is None else problems)
        try:
            settings = Settings.model_validate(tree, context={"base": self.base.absolute()})
        except ValidationError as error:
            problems += [line for line in problems_of(error, Settings, self.origins) if line not in problems]
        if problems:
            raise SettingsError(problems, self.source)
        settings._environ = dict(self.environ)
        settings._source = self.source
        settings._written = self
        return settings


def build(
    tree: Mapping[str, Any], *, base: Path | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Settings from a tree of plain values.

    Args:
        tree: what a `porteiro.toml` would hold.
        base: the directory that relative paths start from; None: the working directory.
        environ: where secrets are looked up. It is not read for settings.

    Raises:
        SettingsError: with every problem there is.
    """
    base = Path.cwd() if base is None else base
    return Written(tree, source="the settings", base=base, environ=environ or {}).checked()


def load(
    path: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    planned: Mapping[Path, bytes | None] | None = None,
) -> Settings:
    """Settings from a file, the fragments beside it and the environment.

    Args:
        path: the file; None: what PORTEIRO_CONFIG names, otherwise ./porteiro.toml where there is one.
        environ: None: this process's, and beneath it the `.env` beside the file.
        planned: what fragments are taken to hold that are not written yet; None: that one is to go.

    Raises:
        SettingsError: with every problem there is.
    """
    return read(path, environ, planned=planned).checked()


def read(
    path: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    planned: Mapping[Path, bytes | None] | None = None,
    parsed: Callable[[Path], dict[str, Any]] | None = None,
) -> Written:
    """What :func:`load` checks.

    Args:
        parsed: reads a file as TOML; None: each one anew.

    Raises:
        SettingsError: a file can't be read, or says what no check could take apart.
    """
    dotenv = environ is None
    file, given = _settings_file(path, os.environ if environ is None else environ)
    if environ is None:
        environ = {**read_env_file(file.parent / ".env"), **os.environ}
    parsed = parsed or parsed_file
    by_hand = parsed(file) if given or file.exists() else {}
    fragments, written_in = _read_fragments(file, planned or {}, parsed)
    tree = _merged(fragments, by_hand)
    overrides, origins = _from_environment(environ)
    origins = {**_not_in(by_hand, written_in), **origins}
    source = str(file) if given or file.exists() else f"the defaults and the environment (no {file} here)"
    return Written(_merged(tree, overrides), origins, source, file.parent, environ, file, dotenv)


def written_tree(file: Path) -> dict[str, Any]:
    """What a settings file itself says, unchecked and without its fragments; {} without one.

    Raises:
        SettingsError: it can't be read, or is no TOML.
    """
    return parsed_file(file) if file.exists() else {}


def parsed_file(file: Path) -> dict[str, Any]:
    """What a file of TOML holds.

    Raises:
        SettingsError: it can't be read, or is no TOML.
    """
    return _parsed(file, _content(file))


def settings_file(path: str | os.PathLike[str] | None = None) -> Path:
    """The file that :func:`load` reads; it need not be there."""
    return _settings_file(path, os.environ)[0]


def fragments_folder(file: Path) -> Path:
    """Where the fragments of a settings file lie: `porteiro.d` beside `porteiro.toml`."""
    return file.with_suffix(".d")


def fragment_files(file: Path) -> list[Path]:
    """The fragments of a settings file, by name.

    Raises:
        SettingsError: they can't be listed; tenants must not be lost in silence.
    """
    folder = fragments_folder(file)
    try:
        files = [each for each in folder.iterdir() if each.suffix == ".toml" and each.name[0] != "."]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SettingsError([f"{folder}: can't be read: {error.strerror}"], str(folder)) from None
    return sorted(files)


def _settings_file(path: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> tuple[Path, bool]:
    """The file, and whether somebody named it: then it must be there."""
    given = path or environ.get(CONFIG_VARIABLE)
    return (Path(given) if given else DEFAULT_FILE).absolute(), bool(given)


def _read_fragments(
    file: Path, planned: Mapping[Path, bytes | None], parsed: Callable[[Path], dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The tenants of all fragments, and which of them each dotted path came from."""
    folder = fragments_folder(file)
    trees = {each: parsed(each) for each in fragment_files(file) if each not in planned}
    trees |= {
        each: _parsed(each, new) for each, new in planned.items() if each.parent == folder and new is not None
    }
    tenants: dict[str, Any] = {}
    owners: dict[str, Path] = {}
    for each in sorted(trees):
        tree = trees[each]
        if set(tree) - {"tenants"} or not isinstance(tree.get("tenants", {}), dict):
            raise SettingsError([f"{each}: a fragment may hold tables [tenants.NAME] alone"], str(each))
        for name, tenant in tree.get("tenants", {}).items():
            if (other := owners.setdefault(name, each)) != each:
                raise SettingsError([f"{each}: tenants.{name} is in {other.name} already"], str(each))
            tenants[name] = tenant
    written_in = {f"tenants.{name}": f"{folder.name}/{each.name}" for name, each in owners.items()}
    for name, tenant in tenants.items():
        keys = tenant if isinstance(tenant, dict) else ()
        written_in |= {f"tenants.{name}.{key}": written_in[f"tenants.{name}"] for key in keys}
    return ({"tenants": tenants} if tenants else {}), written_in


def _not_in(by_hand: Mapping[str, Any], written_in: Mapping[str, str]) -> dict[str, str]:
    """What fragments say and the settings file does not say otherwise."""
    tenants = by_hand.get("tenants")
    own = {
        f"tenants.{name}{key}"
        for name, tenant in (tenants.items() if isinstance(tenants, dict) else ())
        for key in ("", *(f".{key}" for key in (tenant if isinstance(tenant, dict) else ())))
    }
    return {path: file for path, file in written_in.items() if path not in own}


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        problem = "no such file; copy porteiro.example.toml, or name another with --config or PORTEIRO_CONFIG"
    except OSError as error:
        problem = f"can't be read: {error.strerror}"
    raise SettingsError([f"{file}: {problem}"], str(file))


def _parsed(file: Path, content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except tomllib.TOMLDecodeError as error:
        problem = f"not valid TOML: {error}"
    except UnicodeDecodeError:
        problem = "not valid TOML: it is not UTF-8"
    raise SettingsError([f"{file}: {problem}"], str(file))


def _from_environment(environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The tree that `PORTEIRO_…__…` variables make, and which variable each dotted path came from.

    A variable that fits no setting is kept: it is refused later, with the name that was probably meant.
    (pydantic-settings would pass over a misspelt one in silence.)
    """
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for variable in sorted(environ):
        if not variable.startswith(ENV_PREFIX) or variable == CONFIG_VARIABLE or not environ[variable]:
            continue  # an empty one counts as not set
        names = variable[len(ENV_PREFIX) :].lower().split("__")
        place = tree
        for name in names[:-1]:
            below = place.setdefault(name, {})
            if not isinstance(below, dict):
                raise SettingsError(
                    [f"{variable}: a value is already set above it; set one or the other"], variable
                )
            place = below
        place[names[-1]] = _value(environ[variable])
        origins[".".join(names)] = variable
    return tree, origins


def _value(text: str) -> Any:
    """A list or table written as JSON; anything else stays text, which the setting's own type reads."""
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def read_env_file(file: Path) -> dict[str, str]:
    """`NAME=value` lines of a `.env` file (comments, `export ` and quotes allowed); {} without one."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"{file}: can't be read: {error}"], str(file)) from None
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip().removeprefix("export ").strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        if not equals or not name.strip().isidentifier():
            raise SettingsError([f"{file}: line {number} is not NAME=value"], str(file))
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        values[name.strip()] = value
    return values
