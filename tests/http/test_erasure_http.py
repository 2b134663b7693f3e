"""Erasing what a visit has of people over HTTP: who may, what is answered, and what is left."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from storage.store import SqlStorage
from tests.http.people import bearer, make_key, served
from tests.storage.test_store import Visit, whole_visit
from visits.personal import ERASED


async def test_a_manager_erases_a_visit_of_their_own(tmp_path: Path) -> None:
    async with served(tmp_path) as (service, client):
        assert isinstance(service.storage, SqlStorage)
        visit, running = await whole_visit(service.storage), await Visit(service.storage).begin()
        file = service.settings.service.recordings_path / "jardim" / "x.wav"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"RIFF")
        path = f"/v1/visits/{visit.id}/erasure"
        for role, tenant, status in (("reviewer", "jardim", 403), ("manager", "bosque", 404)):
            key = bearer(await make_key(service, role, tenant))  # type: ignore[arg-type]
            assert (await client.post(path, headers=key, json={})).status_code == status
        assert (await client.post(path, json={})).status_code == 401
        manager = bearer(await make_key(service, "manager", "jardim"))
        for wrong, status in ((running.id, 409), (uuid4(), 404), ("x", 422)):
            answer = await client.post(f"/v1/visits/{wrong}/erasure", headers=manager, json={})
            assert answer.status_code == status
        answer = await client.post(path, headers=manager, json={"reason": "x", "who": "João"})
        assert answer.status_code == 422 and "João" not in answer.text
        assert file.exists()

        answer = await client.post(path, headers=manager, json={"reason": "pedido 12"})
        assert (answer.status_code, answer.json()) == (200, {"records": 7, "recordings": 1, "sealed": 0})
        assert not file.exists()
        shown = (await client.get(f"/v1/visits/{visit.id}", headers=manager)).json()
        assert shown["visit"]["visitor_name"] == ERASED and shown["turns"][0]["text"] == ERASED
        assert (shown["visit"]["apartment"], shown["decision"]["decision"]) == ("501", "authorized")
        (record,) = [one async for one in service.storage.audit(kinds=["person.erased"])]
        assert record.data["by"].startswith("key:") and record.data["reason"] == "pedido 12"
        again = await client.post(path, headers=manager, json={})
        assert again.json() == {"records": 0, "recordings": 0, "sealed": 0}
        assert await service.storage.verify() == []
