"""A tenant's settings as a form, made from the settings' model; without I/O.

A field is empty, or says "default", where the tenant says nothing: then the default counts, also one that a
later version changes. What no field shows (a message of its own, prices) stays as it is. A table that comes
in several kinds has the fields of each; those of the chosen kind are read.

What is right is not judged here: the form gives a tree as `[tenants.NAME]` holds it, which the settings check
like any other, and puts what they say of it beside the fields.
"""

from __future__ import annotations

import copy
import json
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bridge.annotations import is_table, members_of
from bridge.http.problems import FieldProblem
from bridge.settings import EVERY_FACT, Fallback, Goodbyes, Tenant
from visits.facts import Intent

Widget = Literal["text", "number", "long", "choice", "flag", "list", "lines", "pairs", "facts", "json"]
Path_ = tuple[str, ...]
Sent = Mapping[str, Sequence[str]]
"""A form as it came: every value of each name."""

SECTIONS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("house", ("name", "kind", "language", "timezone", "greeting", "goodbye", "goodbyes",
               "hold_audio", "prompt_extra", "required")),
    ("consent", ("consent",)),
    ("recording", ("recording", "retention")),
    ("limits", ("limits",)),
    ("numbers", ("numbers", "visitor_port", "resident_port", "registration",
                 "websocket_username_env", "websocket_password_env", "freeswitch", "esl")),
    ("model", ("provider", "model", "voice", "backend_model", "base_url", "api_key_env", "token_file",
               "provider_format", "audio_message_ms", "noise_suppression", "echo_cancellation",
               "interim_texts")),
    ("fallback", ("fallback",)),
    ("pipeline", ("pipeline",)),
    ("gate", ("gate",)),
    ("dialer", ("dialer",)),
    ("attendant", ("attendant", "departments", "extensions", "manager")),
    ("tools", ("tools",)),
    ("webhooks", ("webhooks",)),
    ("cost", ("cost",)),
    ("hearing", ("backchannels", "vad", "echo", "turn_detection")),
)  # fmt: skip
"""The form's parts, in their order. What the model has beside these stands in a last one, `more`."""

LONG: Final = {"greeting", "goodbye", "prompt_extra", "notice", "body", *Goodbyes.model_fields}
LINES: Final = {"interim_texts"}
AS_JSON: Final = {"message", "prices", "tools", "departments"}
MOST_FALLBACKS: Final = 5


@dataclass(frozen=True)
class FormField:
    """One setting that people can see and change.

    Attributes:
        path: where it stands in the tenant's tree.
        name: what the form calls it; with the kind of its table where that has several.
        kind: of the table that it belongs to; None: of every kind.
        options: what may be chosen.
        default: as it is shown; "" where there is none.
        about: the setting's docstring, in English.
    """

    path: Path_
    name: str
    widget: Widget
    kind: str | None = None
    options: tuple[str, ...] = ()
    default: str = ""
    about: str = ""
    needed: bool = False

    @property
    def key(self) -> str:
        """Its name in the catalogue of texts: a fallback's has no number."""
        return ".".join(part for part in self.path if not part.isdigit())

    @property
    def top(self) -> str:
        """The tenant's own setting that it is, or is part of."""
        return self.path[0]


@dataclass(frozen=True)
class Section:
    """One part of the form."""

    name: str
    fields: tuple[FormField, ...]


@dataclass
class Complaints:
    """What the settings say of a tree: beside the fields, and what belongs to none."""

    fields: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.fields or self.others)


# --------------------------------------------------------------------------------------------------------
# The fields
# --------------------------------------------------------------------------------------------------------


def sections(tree: Mapping[str, Any], *, without: Iterable[str] = ()) -> tuple[Section, ...]:
    """The form for a tenant whose settings are ``tree``: it decides how many fallbacks there are."""
    there = tree.get("fallback")
    count = len(there) if isinstance(there, Sequence) and not isinstance(there, str) else 0
    return _sections(min(count + 1, MOST_FALLBACKS), frozenset(without))


@cache
def _sections(fallbacks: int, without: frozenset[str]) -> tuple[Section, ...]:
    """Made once: looking through the model takes some milliseconds, which calls may wait for."""
    left_out = {"id", *without}
    named = {name for _, names in SECTIONS for name in names}
    rest = tuple(name for name in Tenant.model_fields if name not in named)
    parts = []
    for title, names in (*SECTIONS, ("more", rest)):
        shown = [name for name in names if name in Tenant.model_fields and name not in left_out]
        fields = tuple(each for name in shown for each in _fields_of(name, fallbacks))
        if fields:
            parts.append(Section(title, fields))
    return tuple(parts)


def every_field(tree: Mapping[str, Any], *, without: Iterable[str] = ()) -> list[FormField]:
    """All fields of the form."""
    return [each for part in sections(tree, without=without) for each in part.fields]


def _fields_of(name: str, fallbacks: int) -> Iterator[FormField]:
    if name == "fallback":
        for number in range(fallbacks):
            yield from _below(Fallback, ("fallback", str(number)), f"fallback.{number}", None)
    else:
        yield from _field(Tenant, name, (name,), name, None)


def _below(model: type[BaseModel], path: Path_, prefix: str, kind: str | None) -> Iterator[FormField]:
    for name in model.model_fields:
        yield from _field(model, name, (*path, name), f"{prefix}.{name}", kind)


def _field(
    model: type[BaseModel], name: str, path: Path_, shown: str, kind: str | None
) -> Iterator[FormField]:
    info = model.model_fields[name]
    tables = [each for each in members_of(info.annotation) if is_table(each)]
    if len(tables) > 1:
        yield from _kinds(info, tables, path, shown)
    elif tables:
        yield from _below(tables[0], path, shown, kind)
    else:
        yield _leaf(info, path, shown, kind)


def _kinds(
    info: FieldInfo, tables: Sequence[type[BaseModel]], path: Path_, shown: str
) -> Iterator[FormField]:
    """A table that comes in several kinds: which one, and then the fields of each."""
    tags = [(tag, table) for table in tables for tag in _options(table.model_fields["kind"])]
    default = str(getattr(info.default, "kind", ""))
    about = " ".join((tables[0].model_fields["kind"].description or "").split())
    yield FormField(
        (*path, "kind"), f"{shown}.kind", "choice", None, tuple(tag for tag, _ in tags), default, about
    )
    for tag, table in tags:
        for name in table.model_fields:
            if name != "kind":
                yield from _field(table, name, (*path, name), f"{shown}.{tag}.{name}", tag)


def _leaf(info: FieldInfo, path: Path_, shown: str, kind: str | None) -> FormField:
    name, options = path[-1], _options(info)
    members = [each for each in members_of(info.annotation) if each is not type(None)]
    widget: Widget = "text"
    if name == "required" and len(path) == 1:
        widget = "facts"
    elif name in AS_JSON:
        widget = "json"
    elif name in LINES:
        widget = "lines"
    elif name in LONG:
        widget = "long"
    elif options:
        widget = "choice"
    elif members == [bool]:
        widget = "flag"
    elif any(typing.get_origin(each) is dict for each in members):
        widget = "pairs"
    elif any(typing.get_origin(each) is tuple for each in members):
        widget = "list"
    elif set(members) <= {int, float, Decimal}:
        widget = "number"
    about = " ".join((info.description or "").split())
    needed = info.default is PydanticUndefined and path[-1] not in ("visitor_port", "resident_port")
    return FormField(path, shown, widget, kind, options, _default(info, widget), about, needed)


def _options(info: FieldInfo) -> tuple[str, ...]:
    for member in members_of(info.annotation):
        if typing.get_origin(member) is Literal:
            return tuple(str(each) for each in typing.get_args(member) if each != "")
    return ()


def _default(info: FieldInfo, widget: Widget) -> str:
    value = info.default
    if value is PydanticUndefined or value is None or widget in ("json", "facts"):
        return ""
    return shown(value, widget)


# --------------------------------------------------------------------------------------------------------
# From the tree into the form
# --------------------------------------------------------------------------------------------------------


def values_of(tree: Mapping[str, Any], fields: Iterable[FormField]) -> dict[str, str]:
    """What each field shows; empty where the tree says nothing."""
    values = {}
    for each in fields:
        table = _at(tree, each.path[:1])
        if each.kind is not None and isinstance(table, Mapping) and _kind_of(each, table) != each.kind:
            continue
        found = _at(tree, each.path)
        if found is not None:
            values[each.name] = shown(found, each.widget)
    return values


def _kind_of(each: FormField, table: Mapping[str, Any]) -> str:
    return str(table.get("kind") or _default_kind(each.top))


def _default_kind(name: str) -> str:
    return str(getattr(Tenant.model_fields[name].default, "kind", ""))


def _at(tree: Any, path: Path_) -> Any:
    for step in path:
        if isinstance(tree, Mapping):
            tree = tree.get(step)
        elif isinstance(tree, Sequence) and not isinstance(tree, str) and step.isdigit():
            tree = tree[int(step)] if int(step) < len(tree) else None
        else:
            return None
    return tree


def shown(value: Any, widget: Widget) -> str:
    """A value of the settings as its field shows it."""
    if widget == "json":
        return json.dumps(value, ensure_ascii=False, indent=2, default=str)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {each}" for name, each in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ("\n" if widget == "lines" else ", ").join(str(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def facts_of(tree: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What must be known before a resident is called, by why the visitor came; the default where unsaid."""
    told = tree.get("required")
    default = Tenant.model_fields["required"].default
    facts = {str(intent): tuple(needed) for intent, needed in default.items()}
    if isinstance(told, Mapping):
        facts |= {str(intent): tuple(map(str, needed)) for intent, needed in told.items()}
    return {str(intent): facts.get(str(intent), ()) for intent in Intent}


# --------------------------------------------------------------------------------------------------------
# From the form into the tree
# --------------------------------------------------------------------------------------------------------


def tree_after(tree: Mapping[str, Any], fields: Sequence[FormField], sent: Sent) -> dict[str, Any]:
    """The tree with what a form says. A field that the form does not have stays as it is."""
    after: dict[str, Any] = copy.deepcopy(dict(tree))
    for table in ("gate", "dialer"):
        if f"{table}.kind" in sent:
            _choose_kind(after, table, _one(sent, f"{table}.kind"))
    for each in fields:
        if each.path[1:] == ("kind",) and each.top in ("gate", "dialer"):
            continue
        if each.kind is not None and _chosen(after, each.top) != each.kind:
            continue
        if each.widget == "facts":
            if f"{each.name}.shown" in sent:
                _put_facts(after, sent)
        elif each.name in sent:
            _put(after, each.path, _read(_one(sent, each.name), each))
    if "fallback" in after:
        after["fallback"] = [row for row in _rows(after["fallback"]) if row.get("provider")]
    return _without_empty(after)


def _one(sent: Sent, name: str) -> str:
    return sent[name][-1].replace("\r\n", "\n").strip() if sent[name] else ""


def _chosen(tree: Mapping[str, Any], table: str) -> str:
    there = tree.get(table)
    return str(there.get("kind") if isinstance(there, Mapping) else "") or _default_kind(table)


def _choose_kind(tree: dict[str, Any], table: str, kind: str) -> None:
    """Another kind begins anew: its settings are not those of the one before."""
    there = tree.get(table)
    if not kind:
        if _chosen(tree, table) != _default_kind(table):
            tree.pop(table, None)
    elif not isinstance(there, Mapping) or _chosen(tree, table) != kind:
        tree[table] = {"kind": kind}


def _put(tree: dict[str, Any], path: Path_, value: Any) -> None:
    """Set one value; None takes it away."""
    *above, last = path
    place: Any = tree
    for at, step in enumerate(above):
        if isinstance(place, list):
            while len(place) <= int(step):
                place.append({})
            place = place[int(step)]
            continue
        below = place.get(step)
        if not isinstance(below, dict | list):
            if value is None:
                return
            below = place[step] = [] if above[at + 1 : at + 2] and above[at + 1].isdigit() else {}
        elif isinstance(below, list) or step == "fallback":
            below = place[step] = list(below)
        place = below
    if value is None:
        place.pop(last, None)
    else:
        place[last] = value


def _rows(value: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def _put_facts(tree: dict[str, Any], sent: Sent) -> None:
    told = {
        str(intent): [fact for fact in EVERY_FACT if fact in sent.get(f"required.{intent}", ())]
        for intent in Intent
    }
    default = {name: list(facts) for name, facts in facts_of({}).items()}
    if told != default or "required" in tree:
        tree["required"] = told


def _without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    """Tables in which nothing is left say nothing."""
    kept = {}
    for name, value in tree.items():
        if isinstance(value, dict) and name not in AS_JSON:
            value = _without_empty(value)
            if not value:
                continue
        if value == [] and name == "fallback":
            continue
        kept[name] = value
    return kept


def _read(text: str, each: FormField) -> Any:
    """What a field's text says; None: nothing. What it can't be stays text, which the settings refuse."""
    if not text:
        return None
    match each.widget:
        case "number":
            return _number(text)
        case "flag":
            return {"true": True, "false": False}.get(text, text)
        case "list":
            parts = [part.strip() for part in text.replace("\n", ",").split(",") if part.strip()]
            return [_number(part) for part in parts] if each.path[-1] == "status" else parts
        case "lines":
            return [line.strip() for line in text.splitlines() if line.strip()]
        case "pairs":
            return _pairs(text)
        case "json":
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                return text
        case _:
            return _plain(text) if each.path[-1] == "json_equals" else text


def _number(text: str) -> int | float | str:
    """A number as people write it in Brazil or elsewhere; what is none stays text."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text.replace(",", ".") if "." not in text else text)
    except ValueError:
        return text
    return value if value == value and abs(value) != float("inf") else text


def _plain(text: str) -> Any:
    return {"true": True, "false": False}.get(text, _number(text))


def _pairs(text: str) -> Any:
    pairs = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if not line.strip():
            continue
        if not colon:
            return text  # no table, and refused as none
        pairs[name.strip()] = value.strip()
    return pairs


# --------------------------------------------------------------------------------------------------------
# What is wrong, beside the fields
# --------------------------------------------------------------------------------------------------------


def complaints_of(problems: Iterable[FieldProblem], fields: Sequence[FormField], tree: Any) -> Complaints:
    """What is wrong, each to its field; `gate.url` to the URL of the kind of gate that was chosen."""
    complaints = Complaints()
    by_path: dict[str, FormField] = {}
    for each in fields:
        if each.kind is None or _chosen(tree, each.top) == each.kind:
            by_path[".".join(each.path)] = each
    for problem in problems:
        path, said = problem["field"], problem["detail"]
        while path and path not in by_path:
            path = path.rpartition(".")[0]
        if path:
            name = by_path[path].name
            earlier = complaints.fields.get(name)
            complaints.fields[name] = f"{earlier}; {said}" if earlier else said
        else:
            complaints.others.append(f"{problem['field']}: {said}" if problem["field"] else said)
    return complaints


def changed_tops(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The tenant's own settings that differ, dotted as far as the two are tables: `limits.ring_s`."""
    changed: list[str] = []
    for name in sorted({*old, *new}):
        if old.get(name) == new.get(name):
            continue
        first, second = old.get(name), new.get(name)
        if isinstance(first, Mapping) or isinstance(second, Mapping):
            below = changed_tops(
                first if isinstance(first, Mapping) else {}, second if isinstance(second, Mapping) else {}
            )
            changed += [f"{name}.{each}" for each in below] or [name]
        else:
            changed.append(name)
    return changed


__all__ = [
    "Complaints",
    "FormField",
    "Section",
    "changed_tops",
    "complaints_of",
    "every_field",
    "facts_of",
    "sections",
    "tree_after",
    "values_of",
]
