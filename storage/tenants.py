"""Tenants and every version of their settings: what is asked of the database."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from storage.base import StorageRefused
from storage.catalogue import DATABASE, Changes, Clash, Conflict, NotThere, SettingsVersion
from storage.counter import counter, moved
from storage.directories import Author, emptied, replaced
from storage.paging import Page, checked_limit, key_of, page_of
from storage.steps import CATALOGUE, LockChain, Sql, Step, insert, loaded
from storage.store import Heads, appended, checked, locked
from visits.audit import AuditError, canonical
from visits.directory import Apartment

_VERSION: Final = "SELECT s.tenant, s.version, s.at, s.author, s.source, s.content, s.digest"
_IN_FORCE: Final = (
    f"{_VERSION} FROM tenants t JOIN settings_versions s ON s.tenant = t.id AND s.version = t.version"
)
_FIELDS_SAID: Final = 100
"""How many of the settings that differ are named in a record."""


@dataclass(frozen=True, slots=True)
class Content:
    """Settings as they are kept."""

    text: str
    digest: str
    numbers: tuple[tuple[str, str], ...]
    """The kinds and values that become the tenant's."""

    def tree(self) -> dict[str, Any]:
        """The settings."""
        tree: dict[str, Any] = json.loads(self.text)
        return tree


def content_of(tree: Mapping[str, Any]) -> Content:
    """Settings, checked and copied. Raises :class:`StorageRefused` for what is not JSON."""
    try:
        text = canonical(tree)
    except AuditError as error:
        raise StorageRefused(f"a tenant's settings: {error}") from error
    ports = {tree.get(name) for name in ("visitor_port", "resident_port")}
    numbers = tree.get("numbers", ())
    claims = {("port", str(port)) for port in ports if isinstance(port, int) and port}
    if isinstance(numbers, Sequence) and not isinstance(numbers, str):
        claims |= {("number", each) for each in numbers if isinstance(each, str)}
    return Content(text, sha256(text.encode()).hexdigest(), tuple(sorted(claims)))


def _version(row: Any) -> SettingsVersion:
    tenant, version, at, by, source, content, digest = row
    tree = None if content is None else loaded(content)
    return SettingsVersion(tenant, version, at, by, source, tree, digest)


# --------------------------------------------------------------------------------------------------------
# Reading
# --------------------------------------------------------------------------------------------------------


def changes_since(last: int) -> Step[Changes]:
    """What changed behind it."""
    now = yield from counter()
    if now == last:
        return Changes(now)
    if now < last:  # a backup was restored: nothing that was seen can be relied on
        last = 0
    changed = yield Sql(f"{_IN_FORCE} WHERE t.changed > $1 ORDER BY t.id", (last,))
    versions = [_version(row) for row in changed]
    directories = yield Sql("SELECT tenant, version FROM directories WHERE changed > $1", (last,))
    return Changes(
        now,
        tuple(each for each in versions if each.content is not None),
        tuple(each.tenant for each in versions if each.content is None),
        {row[0]: row[1] for row in directories},
    )


def in_force(tenant: str | None = None) -> Step[list[SettingsVersion]]:
    """The settings in force of one tenant, or of all."""
    there = "t.removed = 0"
    if tenant is None:
        rows = yield Sql(f"{_IN_FORCE} WHERE {there} ORDER BY t.id")
    else:
        rows = yield Sql(f"{_IN_FORCE} WHERE {there} AND t.id = $1", (tenant,))
    return [_version(row) for row in rows]


def history(tenant: str, after: str | None, limit: int) -> Step[Page[SettingsVersion]]:
    """A page of versions, the latest first."""
    before = 2**63 - 1 if after is None else key_of(after, int)[0]
    rows = yield Sql(
        f"{_VERSION} FROM settings_versions s WHERE s.tenant = $1 AND s.version < $2"
        " ORDER BY s.version DESC LIMIT $3",
        (tenant, before, checked_limit(limit) + 1),
    )
    return page_of([_version(row) for row in rows], limit, lambda each: (each.version,))


def one_version(tenant: str, version: int) -> Step[SettingsVersion | None]:
    """One version."""
    rows = yield Sql(
        f"{_VERSION} FROM settings_versions s WHERE s.tenant = $1 AND s.version = $2", (tenant, version)
    )
    return _version(rows[0]) if rows else None


def last_version(tenant: str) -> Step[SettingsVersion | None]:
    """The last one, whatever it says."""
    rows = yield Sql(
        f"{_VERSION} FROM settings_versions s WHERE s.tenant = $1 ORDER BY s.version DESC LIMIT 1", (tenant,)
    )
    return _version(rows[0]) if rows else None


def owner(kind: str, value: str) -> Step[str | None]:
    """Whose it is."""
    rows = yield Sql("SELECT tenant FROM numbers WHERE kind = $1 AND value = $2", (kind, value))
    return rows[0][0] if rows else None


# --------------------------------------------------------------------------------------------------------
# Writing
# --------------------------------------------------------------------------------------------------------


def put(
    tenant: str, content: Content, expected: int | None, by: str, at: str, heads: Heads
) -> Step[SettingsVersion]:
    """Have settings in force."""
    yield from locked(tenant, heads)
    yield LockChain(CATALOGUE)
    now = next(iter((yield from in_force(tenant))), None)
    _check_expected(tenant, expected, now)
    if now is not None and now.digest == content.digest:
        return now
    for kind, value in content.numbers:
        whose = yield from owner(kind, value)
        if whose not in (None, tenant):
            raise Clash("port" if kind == "port" else "number", value, str(whose))
    last = yield from last_version(tenant)
    action = "created" if now is None else "changed"
    before = {} if last is None or last.content is None else last.content
    fields = differing(before, content.tree())
    new = _following(last, tenant, at, by, DATABASE, content)
    yield from _noted(new, content, action, fields, heads)
    changed = yield from moved()
    yield Sql(
        "INSERT INTO tenants (id, version, removed, changed) VALUES ($1, $2, 0, $3) ON CONFLICT (id)"
        " DO UPDATE SET version = excluded.version, removed = 0, changed = excluded.changed",
        (tenant, new.version, changed),
        writes=True,
    )
    yield Sql("DELETE FROM numbers WHERE tenant = $1", (tenant,), writes=True)
    yield from insert("numbers", "kind value tenant", [(*each, tenant) for each in content.numbers])
    return new


def removed(tenant: str, expected: int | None, by: str, at: str, heads: Heads) -> Step[SettingsVersion]:
    """Remove a tenant, and all apartments with it."""
    yield from locked(tenant, heads)
    yield LockChain(CATALOGUE)
    now = next(iter((yield from in_force(tenant))), None)
    if now is None:
        raise NotThere(f"there is no tenant {tenant!r:.80} in the database")
    _check_expected(tenant, expected, now)
    last = yield from last_version(tenant)
    new = _following(last, tenant, at, by, DATABASE, None)
    yield from _noted(new, None, "removed", [], heads)
    changed = yield from moved()
    yield Sql(
        "UPDATE tenants SET version = $2, removed = 1, changed = $3 WHERE id = $1",
        (tenant, new.version, changed),
        writes=True,
    )
    yield Sql("DELETE FROM numbers WHERE tenant = $1", (tenant,), writes=True)
    yield from emptied(tenant, changed, by, at, heads)
    return new


def all_put(
    tenants: Mapping[str, tuple[int, Content | None, str]],
    directories: Mapping[str, tuple[int, Sequence[Apartment]]],
    by: str,
    at: str,
    source: str,
    heads: Heads,
) -> Step[None]:
    """Many changes at once."""
    for name in sorted({*tenants, *directories}):  # in everybody's order, and all before the catalogue
        yield from locked(name, heads)
    yield LockChain(CATALOGUE)
    for name, (_, content, _) in tenants.items():
        now = next(iter((yield from in_force(name))), None)
        if now is not None and (content is None or content.digest != now.digest):
            # What they had is free before the first takes anything.
            yield Sql("DELETE FROM numbers WHERE tenant = $1", (name,), writes=True)
    for name, (expected, content, author) in tenants.items():
        if content is None:
            yield from removed(name, expected, author, at, heads)
        else:
            yield from put(name, content, expected, author, at, heads)
    for name, (expected, apartments) in directories.items():
        yield from replaced(name, apartments, Author(by, at, expected, source), heads)


def noted(tenant: str, content: Content, source: str, at: str, heads: Heads) -> Step[SettingsVersion]:
    """Note the version of a tenant of the files."""
    yield from locked(tenant, heads)
    last = yield from last_version(tenant)
    if last is not None and is_same(last, content, source):
        return last
    action = "created" if last is None or last.content is None else "changed"
    before = {} if last is None or last.content is None else last.content
    new = _following(last, tenant, at, "service", source, content)
    yield from _noted(new, content, action, differing(before, content.tree()), heads)
    return new


def is_same(version: SettingsVersion, content: Content, source: str) -> bool:
    """Whether a version is of that content and source."""
    return version.digest == content.digest and version.source == source


def _check_expected(tenant: str, expected: int | None, now: SettingsVersion | None) -> None:
    found = 0 if now is None else now.version
    if expected is not None and expected != found:
        raise Conflict(f"tenant {tenant!r:.80}", expected, found)


def _following(
    last: SettingsVersion | None, tenant: str, at: str, by: str, source: str, content: Content | None
) -> SettingsVersion:
    version = 1 if last is None else last.version + 1
    tree = None if content is None else content.tree()
    return SettingsVersion(tenant, version, at, by, source, tree, "" if content is None else content.digest)


def _noted(
    new: SettingsVersion, content: Content | None, action: str, fields: list[str], heads: Heads
) -> Step[None]:
    """A version among all, and its record."""
    data = {"by": new.by, "action": action, "version": new.version, "source": new.source}
    data |= {"digest": new.digest, "fields": fields[:_FIELDS_SAID]}
    record = checked(new.tenant, "", new.at, "settings.changed", data)
    yield from appended(record, heads)
    text = None if content is None else content.text
    row = (new.tenant, new.version, new.at, new.by, new.source, text, new.digest)
    yield from insert("settings_versions", "tenant version at author source content digest", [row])


def differing(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """The settings in which two trees differ, by their names: ``limits.attempts``."""
    found = []
    for name in sorted({*old, *new}):
        was, now = old.get(name), new.get(name)
        if name in old and name in new and was == now:
            continue
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            found += differing(was, now, f"{path}{name}.")
        else:
            found.append(f"{path}{name}")
    return found
