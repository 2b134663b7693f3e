"""What the directory has names a number and a host, and never anything else that Asterisk could be told."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.dialing.ari_numbers import check_template, endpoint_of


@pytest.mark.parametrize(
    ("template", "number", "endpoint"),
    [
        ("PJSIP/{number}", "1003030", "PJSIP/1003030"),
        ("PJSIP/{number}", "sip:101@condominio.local", "PJSIP/101"),
        ("PJSIP/{number}", " 101\n", "PJSIP/101"),
        ("PJSIP/{number}", "101@trunk", "PJSIP/101"),
        ("PJSIP/{number}@trunk", "sips:101@condominio.local:5061", "PJSIP/101@trunk"),
        ("PJSIP/{number}@trunk", "tel:+5511999990000", "PJSIP/+5511999990000@trunk"),
        ("Local/{number}@from-porteiro", "*101", "Local/*101@from-porteiro"),
        ("PJSIP/t/sip:{number}@{host}", "SIP:ana.silva@10.0.0.7:5062", "PJSIP/t/sip:ana.silva@10.0.0.7:5062"),
        ("PJSIP/t/sip:{number}@{host}", "101@[2001:db8::7]", "PJSIP/t/sip:101@[2001:db8::7]"),
    ],
)  # fmt: skip
def test_what_directories_have_is_dialled(template: str, number: str, endpoint: str) -> None:
    assert endpoint_of(template, number) == endpoint


@pytest.mark.parametrize(
    "number",
    [
        "",
        "sip:condominio.local",
        "sip:@condominio.local",
        "101&PJSIP/trunk/sip:0900@far",
        "101/n",
        "101,30,U(pay)",
        "101@from-internal/n",
        "sip:101@condominio.local;transport=tcp",
        "sip:101@condominio.local?Replaces=x",
        "sip:101:secret@condominio.local",
        "<sip:101@condominio.local>",
        "PJSIP/101",
        "${SHELL(id)}",
        "{host}",
        "101\r\nX: y",
        "1\n01",
        "١٠١",
        "1" * 65,
    ],
)
def test_what_could_be_more_than_a_number_is_refused_with_what_is_allowed(number: str) -> None:
    with pytest.raises(ValueError, match=r"allowed: an extension such as 101"):
        endpoint_of("PJSIP/{number}", number)


@given(st.text() | st.from_regex(r"(sip:)?[0-9@&/,;$(){}|\-a-z]{0,30}", fullmatch=True))
@example("sip:1@h/n")
@example("1@h&PJSIP/2")
def test_nothing_in_a_directory_makes_another_dial_string(number: str) -> None:
    user, host = r"[A-Za-z0-9*#+._-]{1,64}", r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?"
    for template, shape in (
        ("PJSIP/{number}", rf"PJSIP/{user}"),
        ("Local/{number}@from-porteiro", rf"Local/{user}@from-porteiro"),
        ("PJSIP/t/sip:{number}@{host}", rf"PJSIP/t/sip:{user}@{host}"),
    ):
        try:
            endpoint = endpoint_of(template, number)
        except ValueError:
            continue
        assert re.fullmatch(shape, endpoint, re.ASCII), endpoint


def test_a_template_that_asks_for_a_host_needs_one() -> None:
    with pytest.raises(ValueError, match=r"without the host"):
        endpoint_of("PJSIP/trunk/sip:{number}@{host}", "101")


@pytest.mark.parametrize(
    "template", ["PJSIP/{number}", "Local/{number}@porteiro/n", "PJSIP/t/sip:{number}@{host}"]
)
def test_templates_that_can_be_filled(template: str) -> None:
    check_template(template)


@pytest.mark.parametrize(
    "template", ["", "PJSIP/101", "{number}", "PJSIP/{numero}", "PJSIP/{number} x", "PJSIP/{}"]
)
def test_templates_that_can_not(template: str) -> None:
    with pytest.raises(ValueError, match=r"\{number\}"):
        check_template(template)
