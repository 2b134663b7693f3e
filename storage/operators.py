"""Operators, their sessions and API keys: what is asked of the database."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Final

from storage.catalogue import AlreadyThere, ApiKey, KeyRole, NotThere, Operator, OperatorSession, Role
from storage.counter import moved
from storage.steps import CATALOGUE, LockChain, Sql, Step, insert, loaded
from storage.store import Heads, appended, checked, locked

_OPERATOR: Final = "SELECT o.login, o.name, o.role, o.tenant, o.disabled, o.created_at"
_KEY: Final = (
    "SELECT id, name, role, scopes, tenant, created_at, created_by, expires_at, revoked_at, used_at,"
    " secret_hash FROM api_keys"
)

# --------------------------------------------------------------------------------------------------------
# Operators
# --------------------------------------------------------------------------------------------------------


def credentials(login: str) -> Step[tuple[Operator, str] | None]:
    """An operator and the hash of the password."""
    rows = yield Sql(f"{_OPERATOR}, o.password_hash FROM operators o WHERE o.login = $1", (login,))
    return (_operator(rows[0]), rows[0][6]) if rows else None


def operators(tenant: str | None) -> Step[list[Operator]]:
    """Operators by their logins."""
    if tenant is None:
        rows = yield Sql(f"{_OPERATOR} FROM operators o ORDER BY o.login")
    else:
        rows = yield Sql(f"{_OPERATOR} FROM operators o WHERE o.tenant = $1 ORDER BY o.login", (tenant,))
    return [_operator(row) for row in rows]


def _operator(row: Any) -> Operator:
    login, name, role, tenant, disabled, created_at = row[:6]
    return Operator(login, name, role, tenant, bool(disabled), created_at)


def operator_added(new: Operator, password_hash: str, by: str, heads: Heads) -> Step[Operator]:
    """A new operator."""
    chain = new.tenant or ""
    yield from locked(chain, heads)
    yield LockChain(CATALOGUE)
    if (yield from credentials(new.login)) is not None:
        raise AlreadyThere(f"there is an operator {new.login!r:.80} already")
    yield from _said(chain, new.created_at, by, new.login, "created", heads, role=new.role)
    yield from moved()
    row = (new.login, new.name, password_hash, new.role, new.tenant, int(new.disabled), new.created_at)
    yield from insert("operators", "login name password_hash role tenant disabled created_at", [row])
    return new


def operator_changed(
    login: str,
    name: str | None,
    role: Role | None,
    disabled: bool | None,
    by: str,
    at: str,
    heads: Heads,
) -> Step[Operator]:
    """Change what is given; sessions of who is disabled end."""
    old = yield from _locked_operator(login, heads)
    new = Operator(
        login,
        old.name if name is None else name,
        old.role if role is None else role,
        old.tenant,
        old.disabled if disabled is None else disabled,
        old.created_at,
    )
    if new == old:
        return old
    if new.disabled != old.disabled:
        action = "disabled" if new.disabled else "enabled"
    else:
        action = "changed"
    yield from _said(old.tenant or "", at, by, login, action, heads, role=new.role)
    yield from moved()
    yield Sql(
        "UPDATE operators SET name = $2, role = $3, disabled = $4 WHERE login = $1",
        (login, new.name, new.role, int(new.disabled)),
        writes=True,
    )
    if new.disabled:
        yield from _sessions_ended(login)
    return new


def password_set(login: str, password_hash: str, by: str, at: str, heads: Heads) -> Step[None]:
    """Another password; all sessions end."""
    old = yield from _locked_operator(login, heads)
    yield from _said(old.tenant or "", at, by, login, "password", heads)
    yield from moved()
    yield Sql("UPDATE operators SET password_hash = $2 WHERE login = $1", (login, password_hash), writes=True)
    yield from _sessions_ended(login)


def _locked_operator(login: str, heads: Heads) -> Step[Operator]:
    """An operator whom nobody else changes. Their tenant, whose chain is locked, never changes."""
    there = yield from credentials(login)
    if there is None:
        raise NotThere(f"there is no operator {login!r:.80}")
    yield from locked(there[0].tenant or "", heads)
    yield LockChain(CATALOGUE)
    again = yield from credentials(login)
    assert again is not None  # operators are never deleted
    return again[0]


def _said(chain: str, at: str, by: str, login: str, action: str, heads: Heads, **more: object) -> Step[None]:
    data = {"by": by, "login": login, "action": action, **more}
    yield from appended(checked(chain, "", at, "operator.changed", data), heads)


# --------------------------------------------------------------------------------------------------------
# Sessions
# --------------------------------------------------------------------------------------------------------


def session_begun(id_hash: str, login: str, csrf: str, at: str, expires_at: str, _: Heads) -> Step[None]:
    """Note a log-in; forget those that have expired."""
    yield LockChain(CATALOGUE)
    there = yield from credentials(login)
    if there is None or there[0].disabled:
        raise NotThere(f"there is no operator {login!r:.80} who may log in")
    yield Sql("DELETE FROM operator_sessions WHERE expires_at <= $1", (at,), writes=True)
    yield from insert(
        "operator_sessions",
        "id_hash login csrf began_at expires_at",
        [(id_hash, login, csrf, at, expires_at)],
    )


def session(id_hash: str, at: str) -> Step[OperatorSession | None]:
    """A session that holds."""
    rows = yield Sql(
        f"{_OPERATOR}, s.csrf, s.began_at, s.expires_at FROM operator_sessions s"
        " JOIN operators o ON o.login = s.login WHERE s.id_hash = $1 AND s.expires_at > $2"
        " AND o.disabled = 0",
        (id_hash, at),
    )
    return OperatorSession(_operator(rows[0]), *rows[0][6:]) if rows else None


def session_ended(id_hash: str, _: Heads) -> Step[None]:
    """End one."""
    yield Sql("DELETE FROM operator_sessions WHERE id_hash = $1", (id_hash,), writes=True)


def _sessions_ended(login: str) -> Step[None]:
    yield Sql("DELETE FROM operator_sessions WHERE login = $1", (login,), writes=True)


# --------------------------------------------------------------------------------------------------------
# API keys
# --------------------------------------------------------------------------------------------------------


def key(id_: str) -> Step[tuple[ApiKey, str] | None]:
    """A key and the hash of its secret."""
    rows = yield Sql(f"{_KEY} WHERE id = $1", (id_,))
    return (_key(rows[0]), rows[0][10]) if rows else None


def keys(tenant: str | None) -> Step[list[ApiKey]]:
    """Keys, the latest first."""
    if tenant is None:
        rows = yield Sql(f"{_KEY} ORDER BY created_at DESC, id")
    else:
        rows = yield Sql(f"{_KEY} WHERE tenant = $1 ORDER BY created_at DESC, id", (tenant,))
    return [_key(row) for row in rows]


def _key(row: Any) -> ApiKey:
    id_, name, role, scopes, *more = row[:10]
    return ApiKey(id_, name, role, None if scopes is None else tuple(loaded(scopes)), *more)


def key_added(
    id_: str,
    secret_hash: str,
    name: str,
    role: KeyRole,
    scopes: Collection[str] | None,
    tenant: str | None,
    expires_at: str | None,
    by: str,
    at: str,
    heads: Heads,
) -> Step[ApiKey]:
    """A new key."""
    chain = tenant or ""
    yield from locked(chain, heads)
    yield LockChain(CATALOGUE)
    if (yield from key(id_)) is not None:
        raise AlreadyThere(f"there is a key {id_!r:.80} already")
    narrowed = None if scopes is None else sorted(set(scopes))
    data: dict[str, object] = {"by": by, "key": id_, "action": "created", "name": name, "role": role}
    data |= {"scopes": narrowed, "expires_at": expires_at}
    yield from appended(checked(chain, "", at, "key.changed", data), heads)
    yield from moved()
    text = None if narrowed is None else json.dumps(narrowed)
    yield from insert(
        "api_keys",
        "id name secret_hash role scopes tenant created_at created_by expires_at",
        [(id_, name, secret_hash, role, text, tenant, at, by, expires_at)],
    )
    return ApiKey(id_, name, role, None if narrowed is None else tuple(narrowed), tenant, at, by, expires_at)


def key_revoked(id_: str, by: str, at: str, heads: Heads) -> Step[ApiKey]:
    """It is of no use from now on."""
    there = yield from key(id_)
    if there is None:
        raise NotThere(f"there is no key {id_!r:.80}")
    chain = there[0].tenant or ""  # never changes
    yield from locked(chain, heads)
    yield LockChain(CATALOGUE)
    again = yield from key(id_)
    assert again is not None  # keys are never deleted
    if again[0].revoked_at is not None:
        return again[0]
    data = {"by": by, "key": id_, "action": "revoked", "name": again[0].name}
    yield from appended(checked(chain, "", at, "key.changed", data), heads)
    yield from moved()
    yield Sql("UPDATE api_keys SET revoked_at = $2 WHERE id = $1", (id_, at), writes=True)
    revoked = yield from key(id_)
    assert revoked is not None
    return revoked[0]


def key_used(id_: str, at: str, before: str, _: Heads) -> Step[None]:
    """Note a use, where none was noted since ``before``."""
    yield Sql(
        "UPDATE api_keys SET used_at = $2 WHERE id = $1 AND (used_at IS NULL OR used_at < $3)",
        (id_, at, before),
        writes=True,
    )
