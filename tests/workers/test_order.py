"""What a worker is started with: the front's settings, secret for secret, and nothing of its environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bridge.model_server import ModelServerAddress
from bridge.runner import ResidentPort
from bridge.settings import AriDialer, Settings, build
from bridge.workers.order import WorkerOrder
from tests.service.household import ROOT

ENVIRON = {"ARI_PASSWORD": "for ARI", "OPENAI_API_KEY": "a key", "UNRELATED": "a secret of another program"}
TENANTS: dict[str, Any] = {
    "jardim": {
        "directory": "data/apartamentos.json",
        "provider": "openai",
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


def order(settings: Settings) -> WorkerOrder:
    made = WorkerOrder.of(
        2,
        7,
        settings,
        {"jardim": ResidentPort(("127.0.0.1", "::1"), 8081)},
        ModelServerAddress("http://127.0.0.1:5", "a token"),
    )
    return WorkerOrder.model_validate_json(made.model_dump_json())


def test_a_worker_has_the_fronts_settings(tmp_path: Path, monkeypatch: Any) -> None:
    settings = front()
    monkeypatch.chdir(tmp_path)  # relative paths are the front's, wherever the worker runs
    read = order(settings)
    theirs = read.settings()
    assert theirs.service == settings.service
    assert theirs.tenants["bosque"] == settings.tenants["bosque"]
    for name, tenant in settings.tenants.items():  # what was not set is not set there either
        assert theirs.tenants[name].model_fields_set == tenant.model_fields_set
    assert read.residents["jardim"] == ResidentPort(("127.0.0.1", "::1"), 8081)
    assert read.models == ModelServerAddress("http://127.0.0.1:5", "a token")


def test_it_has_the_secrets_that_tenants_name_and_no_other() -> None:
    read = order(front())
    assert read.secrets == {"ARI_PASSWORD": "for ARI", "OPENAI_API_KEY": "a key"}
    assert read.settings().secret("ARI_PASSWORD") == "for ARI"
    assert "for ARI" not in str(read.tree)


def test_each_worker_is_a_stasis_application_of_its_own() -> None:
    settings = front()
    dialer = order(settings).settings().tenants["jardim"].dialer
    assert isinstance(dialer, AriDialer)
    assert dialer.app == "casa-2"
    assert dialer.model_copy(update={"app": "casa"}) == settings.tenants["jardim"].dialer
