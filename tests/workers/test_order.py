"""What a worker is started with: the front's settings, secret for secret, and nothing of its environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bridge.model_server import ModelServerAddress
from bridge.runner import Placing, ResidentPort
from bridge.settings import AriDialer, Settings, build
from bridge.tenants import TenantInForce, Version
from bridge.workers.order import ChangeOrder, WorkerOrder
from tests.service.household import ROOT
from visits.directory import Directory

ENVIRON = {"ARI_PASSWORD": "for ARI", "OPENAI_API_KEY": "a key", "UNRELATED": "a secret of another program"}
TENANTS: dict[str, Any] = {
    "jardim": {
        "directory": "data/apartamentos.json",
        "dialer": {"kind": "ari", "password_env": "ARI_PASSWORD", "app": "casa"},
        "limits": {"ring_s": 30},
    },
    "bosque": {
        "directory": "data/apartamentos.json",
        "visitor_port": 9000,
        "resident_port": 9001,
        "required": {"visita": ["apartment"]},
        "gate": {"kind": "http", "url": "https://door/open?{visit}", "ca_file": "door.pem"},
        "numbers": ["9000"],
    },
}


def front() -> Settings:
    service = {"workers": 2, "http_port": 0, "allowed_peers": ["10.0.0.0/8"], "log": {"level": "debug"}}
    return build({"service": service, "tenants": TENANTS}, base=ROOT, environ=ENVIRON)


def placed(settings: Settings) -> dict[str, Placing]:
    one = {
        name: TenantInForce(
            tenant,
            Directory.from_records(json.loads(Path(tenant.directory or "").read_bytes())),
            Version(7, "a digest"),
            secrets={
                variable: value
                for _, variable in tenant.secret_variables
                if (value := settings.secret(variable)) is not None
            },
        )
        for name, tenant in settings.tenants.items()
    }
    return {name: Placing(each, ResidentPort(("127.0.0.1", "::1"), 8081)) for name, each in one.items()}


def order(settings: Settings) -> WorkerOrder:
    models = ModelServerAddress("http://127.0.0.1:5", "a token")
    made = WorkerOrder.of(2, 7, settings, placed(settings), models)
    return WorkerOrder.model_validate_json(made.model_dump_json())


def test_a_worker_has_the_fronts_settings(tmp_path: Path, monkeypatch: Any) -> None:
    settings = front()
    monkeypatch.chdir(tmp_path)  # relative paths are the front's, wherever the worker runs
    read = order(settings)
    assert read.settings().service == settings.service
    theirs = read.places()
    assert theirs["bosque"].one.tenant == settings.tenants["bosque"]
    for name, placing in placed(settings).items():  # what was not set is not set there either
        assert theirs[name].one.tenant.model_fields_set == placing.one.tenant.model_fields_set
        assert theirs[name].one.directory == placing.one.directory
        assert theirs[name].one.version == Version(7, "a digest")
        assert theirs[name].residents == ResidentPort(("127.0.0.1", "::1"), 8081)
    assert read.tenants.models == ModelServerAddress("http://127.0.0.1:5", "a token")


def test_it_has_the_secrets_that_tenants_name_and_no_other() -> None:
    read = order(front())
    assert read.secrets == {}
    theirs = read.places()
    assert dict(theirs["jardim"].one.secrets) == {"ARI_PASSWORD": "for ARI"}
    assert theirs["bosque"].one.secret("OPENAI_API_KEY") is None, "another tenant's"
    assert theirs["jardim"].one.secret("ARI_PASSWORD") == "for ARI"
    jardim = read.tenants.places["jardim"]
    assert jardim is not None and "for ARI" not in str((read.service, jardim.table))


def test_each_worker_is_a_stasis_application_of_its_own() -> None:
    settings = front()
    dialer = order(settings).places()["jardim"].one.tenant.dialer
    assert isinstance(dialer, AriDialer)
    assert dialer.app == "casa-2"
    assert dialer.model_copy(update={"app": "casa"}) == settings.tenants["jardim"].dialer


def test_a_change_says_who_is_gone() -> None:
    settings = front()
    places = {**placed(settings), "jardim": None}
    read = ChangeOrder.model_validate_json(ChangeOrder.of(places, None).model_dump_json())
    assert read.as_places(settings.service, 1).keys() == {"jardim", "bosque"}
    assert read.as_places(settings.service, 1)["jardim"] is None
