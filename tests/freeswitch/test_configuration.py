"""FreeSWITCH's configuration files: FreeSWITCH can read them, FusionPBX can, and which numbers they take."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from uuid import UUID
from xml.etree import ElementTree

import pytest

from tests.freeswitch.lua_host import ROOT, SCRIPT
from tests.service.household import settings

FREESWITCH = ROOT / "freeswitch"
FILES = sorted(FREESWITCH.rglob("*.xml"))
PLAIN = FREESWITCH / "dialplan" / "porteiro.xml"
FUSIONPBX = FREESWITCH / "fusionpbx" / "280_porteiro.xml"
DIALPLANS = (PLAIN, FUSIONPBX)


def extension(dialplan: Path) -> ElementTree.Element:
    root = ElementTree.parse(dialplan).getroot()
    found = root if root.tag == "extension" else root.find("extension")
    assert found is not None
    return found


def actions(dialplan: Path) -> list[tuple[str, str]]:
    """(application, data) of what is done, in its order."""
    return [
        (action.attrib["application"], action.attrib["data"])
        for action in extension(dialplan).iter("action")
        if action.get("enabled", "true") == "true"
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_file_is_xml_of_the_root_that_freeswitch_looks_for(file: Path) -> None:
    root = ElementTree.parse(file).getroot()
    if file.parent.name == "autoload_configs":
        assert root.tag == "configuration" and root.attrib["name"] == file.name.removesuffix(".xml")
        parameters = [param.attrib for param in root.iter("param")]
        assert parameters and all(set(each) == {"name", "value"} for each in parameters)
    else:
        assert root.tag == ("extension" if file == FUSIONPBX else "include")
    assert b"\t" not in file.read_bytes() or file == FUSIONPBX


@pytest.mark.parametrize("dialplan", DIALPLANS, ids=lambda file: file.name)
@pytest.mark.parametrize(
    ("number", "taken"),
    [
        *((number, True) for number in ("8000", "8001", "8999", "portaria")),
        *(
            (number, False)
            for number in ("", "800", "80001", "7999", "9000", "*8001", "+8001", "8a01", "8001 ")
        ),
        *((number, False) for number in ("portaria2", "aportaria", "x8001", "8001\n8001", "0")),
    ],
)
def test_its_numbers_are_taken_and_no_other(dialplan: Path, number: str, taken: bool) -> None:
    (condition,) = extension(dialplan).findall("condition")
    assert condition.attrib["field"] == "destination_number"
    assert (
        bool(re.search(condition.attrib["expression"], number)) is taken
    )  # FreeSWITCH searches, as PCRE does


@pytest.mark.parametrize("dialplan", DIALPLANS, ids=lambda file: file.name)
def test_the_script_comes_last_but_for_who_answers_where_it_can_not_run(dialplan: Path) -> None:
    steps = actions(dialplan)
    names = [name for name, _ in steps]
    assert names == ["set"] * (len(names) - 2) + ["lua", "transfer"]
    assert dict(steps)["lua"] == SCRIPT.name
    (attendant,) = [data for name, data in steps if data.startswith("porteiro_attendant=")]
    place, _, context = dict(steps)["transfer"].partition(" XML ")
    assert place == "${porteiro_attendant}" and context in ("${context}", "${domain_name}")
    condition = extension(dialplan).find("condition")
    assert condition is not None
    assert not re.search(condition.attrib["expression"], attendant.partition("=")[2]), "a circle"


def test_the_variables_that_are_set_are_those_that_the_script_reads() -> None:
    script = SCRIPT.read_text(encoding="utf-8")
    read = {"porteiro_attendant", "porteiro_legacy", *re.findall(r'variable\("(\w+)"\)', script)}
    for dialplan in DIALPLANS:
        written = {data.partition("=")[0] for name, data in every_set(dialplan) if name == "set"}
        assert written <= read, written - read
    told = set(re.findall(r'setting\("(\w+)"\)', script))
    names = re.findall(r'data="(\w+)=', (FREESWITCH / "porteiro_vars.xml").read_text(encoding="utf-8"))
    assert names and set(names) <= told


def every_set(dialplan: Path) -> list[tuple[str, str]]:
    """Also those that are switched off, or in a comment."""
    text = dialplan.read_text(encoding="utf-8")
    return re.findall(r'<action application="(\w+)" data="([^"]*)"', text)


def test_fusionpbx_finds_what_its_import_reads() -> None:
    """`dialplan.php`, `import()`: a template of each app's `resources/switch/conf/dialplan`."""
    found = extension(FUSIONPBX).attrib
    needed = {"name", "number", "context", "continue", "app_uuid", "order", "description"}
    assert needed <= set(found) <= needed | {"global", "enabled"}
    assert UUID(found["app_uuid"]).version == 4
    assert (found["context"], found["continue"]) == ("${domain_name}", "false")
    assert FUSIONPBX.name.startswith(found["order"])
    for condition in extension(FUSIONPBX):
        assert set(condition.attrib) >= {"field", "expression"}
        assert all(set(action.attrib) == {"application", "data", "enabled"} for action in condition)
    text = FUSIONPBX.read_text(encoding="utf-8")
    assert text.startswith("<extension "), "it is read as a string, without a comment before it"
    assert "{v_" not in text, "a domain is named by a variable, so that it may be renamed"


def test_the_settings_that_the_guide_shows_are_settings(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "freeswitch.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    tenant = tomllib.loads("".join(blocks))["tenants"]["jardim"]
    ports = {"visitor_port": 9080, "resident_port": 9081, "provider": "local"}
    environ = {"JARDIM_STREAM_TOKEN": "a token", "ESL_PASSWORD": "a password"}
    made = settings(tmp_path, {"jardim": {**ports, **tenant}}, environ).tenants["jardim"]
    assert made.freeswitch is not None and made.esl is not None
    assert (made.freeswitch.mode, made.dialer.kind, made.gate.kind) == ("realtime", "freeswitch", "dtmf")
    (domain,) = [data.partition("=")[2] for _, data in actions(PLAIN) if data.startswith("domain_uuid=")]
    assert made.freeswitch.domain_uuid == domain, "as in the example of a dialplan"


def test_who_reads_the_example_passwords_reaches_nothing_from_elsewhere() -> None:
    socket = {
        param.attrib["name"]: param.attrib["value"]
        for param in ElementTree.parse(FREESWITCH / "autoload_configs" / "event_socket.conf.xml").iter(
            "param"
        )
    }
    assert socket["listen-ip"] == "127.0.0.1" and socket["apply-inbound-acl"] == "loopback.auto"
    assert socket["password"].startswith("change-me") and socket["password"] != "ClueCon"
