"""How audit records are read and written, with what is kept beside them."""

from __future__ import annotations

from typing import Final

RECORD: Final = (
    "SELECT a.seq, a.tenant, a.visit, a.at, a.kind, a.data, a.previous, a.hash, p.salt, p.data"
    " FROM audit a LEFT JOIN audit_personal p ON p.tenant = a.tenant AND p.seq = a.seq"
)
SEALED: Final = "SELECT a.seq, a.tenant, a.visit, a.at, a.kind, a.data, a.previous, a.hash FROM audit a"
BESIDE: Final = "SELECT p.tenant, p.seq, p.salt, p.data FROM audit_personal p"
INSERT: Final = (
    "INSERT INTO audit (seq, tenant, visit, at, kind, data, previous, hash)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
)
INSERT_PERSONAL: Final = "INSERT INTO audit_personal (tenant, seq, salt, data) VALUES ($1, $2, $3, $4)"

__all__ = ["BESIDE", "INSERT", "INSERT_PERSONAL", "RECORD", "SEALED"]
