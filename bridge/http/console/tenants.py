"""The tenants: which there are, and one's settings as a form, as text, and in every version there was."""

from __future__ import annotations

import asyncio
import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response
from starlette.routing import Route

from bridge.http.access import Caller, missing
from bridge.http.console.page import Notice
from bridge.http.console.settings_form import (
    Complaints,
    FormField,
    changed_tops,
    complaints_of,
    every_field,
    facts_of,
    sections,
    tree_after,
    values_of,
)
from bridge.http.console.site import Asked, Form, Site
from bridge.http.console.wrong import in_words
from bridge.http.problems import Problem
from bridge.http.rights import HOUSE_FIELDS, house_part, not_the_houses
from bridge.http.tenants import Tenants, TenantSettings, shown_to
from bridge.settings import EVERY_FACT, Tenant
from bridge.toml_text import toml_text
from storage.catalogue import SettingsVersion
from visits.facts import Intent

PER_PAGE: Final = 30
TENANTS_PER_PAGE: Final = 100
MOST_TOML: Final = 64 * 1024
MOST_DOTS: Final = 1000
"""Of a tenant's settings as text: characters, and dots in one line."""
MOST_COMPARED: Final = 2000
"""Lines of two versions together, of which what differs is shown."""
OF_FILES: Final = ("directory",)
"""Settings that a tenant of the database has not."""
SHORT: Final = "goodbye"
"""The short way to say one of the goodbyes: it is shown where it is used."""


def routes(site: Site, tenants: Tenants) -> list[Route]:
    """The pages of this file."""

    async def every(asked: Asked) -> Response:
        after = asked.query("after", 400) or None
        page = tenants.page(asked.caller, after, TENANTS_PER_PAGE)
        providers = {name: one.provider for name, one in site.tenants().items()}
        return await asked.show("tenants.html", page=page, providers=providers, later=bool(after))

    async def new(asked: Asked) -> Response:
        if asked.request.method == "GET":
            return await _show_new(asked, "", {}, Complaints())
        form = await asked.form()
        name = form.one("id")
        fields = every_field({}, without=(*OF_FILES, SHORT))
        content = tree_after({}, fields, form)
        if not _is_id(name):
            complaints = Complaints({"id": asked.t("tenants.id_help")})
            return await _show_new(asked, name, content, complaints, form)
        try:
            await tenants.put(asked.caller, name, content, 0)
        except Problem as problem:
            complaints = _complaints(problem, fields, content)
            return await _show_new(asked, name, content, complaints, form)
        return asked.see(f"/tenants/{name}", "saved")

    async def one(asked: Asked) -> Response:
        found = await tenants.settings(asked.caller, asked.path("tenant"))
        return await _show_form(asked, found, found.content, Complaints())

    async def save(asked: Asked) -> Response:
        name, form = asked.path("tenant"), await asked.form()
        found = await tenants.settings(asked.caller, name)
        fields = [each for each in _fields(asked.caller, found) if _may_change(asked.caller, found, each)]
        after = tree_after(found.content, fields, form)
        given = after if asked.caller.rules else house_part(after)
        try:
            await tenants.put(asked.caller, name, given, _version(form))
        except Problem as problem:
            return await _show_form(asked, found, after, _complaints(problem, fields, after), form, problem)
        return asked.see(f"/tenants/{name}", "saved_settings")

    async def text(asked: Asked) -> Response:
        found = await tenants.settings(asked.caller, asked.path("tenant"))
        return await _show_text(asked, found, toml_text(found.content), [])

    async def save_text(asked: Asked) -> Response:
        name, form = asked.path("tenant"), await asked.form()
        found = await tenants.settings(asked.caller, name)
        said = form.one("toml").replace("\r\n", "\n")
        try:
            # In a thread: the event loop may carry calls.
            await tenants.put(asked.caller, name, await asyncio.to_thread(_tree, said), _version(form))
        except ValueError as error:
            wrong = [asked.t("tenants.not_toml", why=error)]
        except Problem as problem:
            wrong = _lines(asked, problem)
        else:
            return asked.see(f"/tenants/{name}/toml", "saved_settings")
        return await _show_text(asked, found, said, wrong)

    async def history(asked: Asked) -> Response:
        name = asked.path("tenant")
        found = await tenants.settings(asked.caller, name)
        after = asked.query("after", 400) or None
        page = await tenants.catalogue.history(name, after=after, limit=PER_PAGE)
        rows = []
        for at, version in enumerate(page.items):
            before = page.items[at + 1] if at + 1 < len(page.items) else None
            if before is None and version.version > 1:
                before = await tenants.catalogue.version(name, version.version - 1)
            old, new = _seen(before, asked.caller), _seen(version, asked.caller)
            rows.append((version, changed_tops(old, new)))
        return await asked.show(
            "history.html",
            found=found,
            rows=rows,
            next=page.next,
            later=bool(after),
            called=await asked.names(),
        )

    async def version(asked: Asked) -> Response:
        name, number = asked.path("tenant"), asked.number("version")
        found = await tenants.settings(asked.caller, name)
        wanted = await tenants.catalogue.version(name, number)
        if wanted is None:
            raise missing("version")
        before = await tenants.catalogue.version(name, number - 1) if number > 1 else None
        old, new = (toml_text(_seen(each, asked.caller)) for each in (before, wanted))
        return await asked.show(
            "version.html",
            found=found,
            version=wanted,
            called=await asked.names(),
            before=before,
            lines=await asyncio.to_thread(differences, old, new),
            may_restore=_may_write(asked.caller) and found.kept_in is None and wanted.content is not None,
        )

    async def restore(asked: Asked) -> Response:
        name, form = asked.path("tenant"), await asked.form()
        asked.caller.own(name)
        wanted = await tenants.catalogue.version(name, asked.number("version"))
        if wanted is None or wanted.content is None:
            raise missing("version")
        given = {key: value for key, value in wanted.content.items() if key not in OF_FILES}
        if not asked.caller.rules:
            given = house_part(given)
        await tenants.put(asked.caller, name, given, _version(form))
        return asked.see(f"/tenants/{name}/history", "restored")

    async def remove(asked: Asked) -> Response:
        await tenants.remove(asked.caller, asked.path("tenant"), _version(await asked.form()))
        return asked.see("/tenants", "removed")

    writes: dict[str, Any] = {"role": "manager", "methods": "POST"}
    return [
        site.page("/tenants", every, "tenants:read"),
        site.page("/tenants/new", new, "tenants:write", role="admin", methods="GET POST"),
        site.page("/tenants/{tenant}", one, "tenants:read"),
        site.page("/tenants/{tenant}", save, "tenants:write", **writes),
        site.page("/tenants/{tenant}/toml", text, "tenants:read"),
        site.page("/tenants/{tenant}/toml", save_text, "tenants:write", **writes),
        site.page("/tenants/{tenant}/history", history, "tenants:read"),
        site.page("/tenants/{tenant}/history/{version}", version, "tenants:read"),
        site.page("/tenants/{tenant}/history/{version}/restore", restore, "tenants:write", **writes),
        site.page("/tenants/{tenant}/remove", remove, "tenants:write", role="admin", methods="POST"),
    ]


# --------------------------------------------------------------------------------------------------------
# Who may change what
# --------------------------------------------------------------------------------------------------------


def is_house(field: FormField) -> bool:
    """Whether the house decides this setting."""
    nested: Any = ""
    for part in reversed(field.path):
        nested = {part: nested}
    return not list(not_the_houses(nested))


def _may_write(caller: Caller) -> bool:
    return caller.may("tenants:write") and caller.at_least("manager")


def _may_change(caller: Caller, found: TenantSettings, field: FormField) -> bool:
    if found.kept_in is not None or not _may_write(caller):
        return False
    return caller.rules or is_house(field)


def _left_out(caller: Caller, found: TenantSettings) -> Sequence[str]:
    """Settings that the form does not show: those of files, and to whoever is bound, what is not theirs."""
    hidden: tuple[str, ...] = () if found.kept_in is not None else OF_FILES
    if SHORT not in found.content:
        hidden += (SHORT,)
    if caller.unbound:
        return hidden
    return (*hidden, *(name for name in Tenant.model_fields if name not in HOUSE_FIELDS))


def _fields(caller: Caller, found: TenantSettings) -> list[FormField]:
    fields = every_field(found.content, without=_left_out(caller, found))
    return [each for each in fields if caller.unbound or is_house(each)]


def _seen(version: SettingsVersion | None, caller: Caller) -> Mapping[str, Any]:
    if version is None or version.content is None:
        return {}
    return shown_to(caller, version.content)


def _version(form: Form) -> int:
    """The version that whoever sends a form has seen. Raises :class:`Problem`."""
    text = form.one("version")
    if not text.isdecimal() or len(text) > 15:
        raise Problem(400, f"version: found {text[:20]!r}; allowed: the one that the page showed")
    return int(text)


def _number(asked: Asked) -> int:
    """The version that the address names. Raises :class:`Problem`."""
    text = asked.path("version")
    if re.fullmatch("[0-9]{1,9}", text) is None:
        raise missing("version")
    return int(text)


def _is_id(text: str) -> bool:
    return (
        bool(text)
        and len(text) <= 63
        and text[0].isalnum()
        and all(char in "abcdefghijklmnopqrstuvwxyz0123456789_-" for char in text)
    )


# --------------------------------------------------------------------------------------------------------
# What is shown
# --------------------------------------------------------------------------------------------------------


def _complaints(problem: Problem, fields: Sequence[FormField], tree: Any) -> Complaints:
    """What is wrong, beside the fields. What is wrong with the request itself is raised again."""
    if problem.status not in (412, 422):
        raise problem
    return complaints_of(problem.problems, fields, tree)


def _lines(asked: Asked, problem: Problem) -> list[str]:
    if problem.status == 412:
        return [asked.t("error.409.text")]
    if problem.status != 422:
        raise problem
    return [
        f"{one['field']}: {in_words(asked.t, one['detail'])}" if one["field"] else one["detail"]
        for one in problem.problems
    ]


async def _show_form(
    asked: Asked,
    found: TenantSettings,
    tree: Mapping[str, Any],
    complaints: Complaints,
    sent: Form | None = None,
    problem: Problem | None = None,
) -> Response:
    caller = asked.caller
    parts = []
    for part in sections(found.content if sent is None else tree, without=_left_out(caller, found)):
        fields = [each for each in part.fields if caller.unbound or is_house(each)]
        if fields:
            parts.append((part.name, fields))
    every = [each for _, fields in parts for each in fields]
    notices = []
    if problem is not None and problem.status == 412:
        notices.append(Notice("bad", asked.t("error.409.text")))
    elif complaints:
        n = len(complaints.fields) + len(complaints.others)
        notices.append(Notice("bad", asked.t("tenants.wrong", n=n)))
    may = {each.name for each in every if _may_change(caller, found, each)}
    return await asked.show(
        "tenant.html",
        status=200 if problem is None else problem.status,
        found=found,
        parts=parts,
        may=may,
        restricted=bool(may) and len(may) < len(every),
        complaints=complaints,
        version=found.version or 0 if sent is None else _version(sent),
        may_remove=caller.rules and found.kept_in is None,
        **_form_values(asked, tree, every, complaints, sent),
        **({"notices": notices} if notices else {}),
    )


async def _show_new(
    asked: Asked, name: str, tree: Mapping[str, Any], complaints: Complaints, sent: Form | None = None
) -> Response:
    parts = [
        (part.name, part.fields)
        for part in sections(tree, without=(*OF_FILES, SHORT))
        if part.name in ("house", "numbers", "model", "gate", "dialer")
    ]
    every = [each for _, fields in parts for each in fields]
    return await asked.show(
        "tenant_new.html",
        status=200 if sent is None else 422,
        id=name,
        parts=parts,
        may={each.name for each in every},
        complaints=complaints,
        **_form_values(asked, tree, every, complaints, sent),
    )


def _form_values(
    asked: Asked,
    tree: Mapping[str, Any],
    fields: Sequence[FormField],
    complaints: Complaints,
    sent: Form | None,
) -> dict[str, Any]:
    """What the fields show: what was sent, where something was wrong with it."""
    values = values_of(tree, fields)
    if sent is not None:
        values |= {each.name: sent.one(each.name) for each in fields if each.name in sent}
    return {
        "values": values,
        "facts": facts_of(tree),
        "every_fact": EVERY_FACT,
        "intents": [str(intent) for intent in Intent],
        "wrong": {name: in_words(asked.t, said) for name, said in complaints.fields.items()},
        # Docstrings mark code by backticks, which mean nothing on a page.
        "own_help": {
            each.name: each.about.replace("`", "")
            for each in fields
            if not asked.t.has(f"setting_help.{each.key}")
        },
    }


async def _show_text(asked: Asked, found: TenantSettings, text: str, wrong: Sequence[str]) -> Response:
    return await asked.show(
        "tenant_toml.html",
        status=422 if wrong else 200,
        found=found,
        text=text,
        wrong=wrong,
        may_save=found.kept_in is None and _may_write(asked.caller),
    )


def _tree(text: str) -> dict[str, Any]:
    """What TOML says. Raises :class:`ValueError`."""
    # The time and memory that reading takes grow with the square of a dotted key's length.
    if len(text) > MOST_TOML or any(line.count(".") > MOST_DOTS for line in text.splitlines()):
        raise ValueError(
            f"found {len(text)} characters; allowed are {MOST_TOML}, with {MOST_DOTS} dots in a line"
        )
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("found tables or lists too deep in each other; allowed are a few") from None


def differences(old: str, new: str) -> list[tuple[str, str]]:
    """Two texts as one list of lines: `+` for what came, `-` for what went, ` ` for what stayed near it."""
    before, after = old.splitlines(), new.splitlines()
    if len(before) + len(after) > MOST_COMPARED:  # to find what stayed takes the square of that
        return [*(("-", line) for line in before), *(("+", line) for line in after)]
    lines: list[tuple[str, str]] = []
    for line in difflib.unified_diff(before, after, lineterm="", n=2):
        if line.startswith(("---", "+++")):
            continue
        lines.append(("@", "…") if line.startswith("@@") else (line[:1], line[1:]))
    return lines[1:] if lines[:1] == [("@", "…")] else lines
