"""What is sent is signed as the standard has it: by its own verifier, and by no other key."""

from __future__ import annotations

import time
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from bridge.signing import key_of, signature_headers

KEYS = st.binary(min_size=24, max_size=64)


@given(KEYS, st.text(alphabet="0123456789abcdef-", min_size=1), st.text())
def test_the_standards_own_verifier_takes_it_and_nothing_else(key: bytes, id: str, text: str) -> None:
    secret = "whsec_" + b64encode(key).decode()
    assert key_of(secret) == key
    signed = signature_headers(key, id, int(time.time()), text.encode())
    verifier = Webhook(secret)
    verifier.verify(text, signed, json_parse=False)
    late = signature_headers(key, id, int(time.time()) - 400, text.encode())
    for wrong, body in (
        (signed, text + " "),
        ({**signed, "webhook-id": id + "0"}, text),
        ({**signed, "webhook-timestamp": str(int(signed["webhook-timestamp"]) - 1)}, text),
        (signature_headers(key[:-1] + bytes([key[-1] ^ 1]), id, int(time.time()), text.encode()), text),
        (late, text),
    ):
        with pytest.raises(WebhookVerificationError):
            verifier.verify(body, wrong, json_parse=False)


NO_SECRETS = st.one_of(
    st.text(max_size=20),
    st.binary(max_size=23).map(lambda key: "whsec_" + b64encode(key).decode()),
    st.binary(min_size=65, max_size=90).map(lambda key: "whsec_" + b64encode(key).decode()),
    KEYS.map(lambda key: "whsec_!" + b64encode(key).decode()),
)


@given(NO_SECRETS)
def test_what_is_no_secret_is_refused_without_a_word_of_it(secret: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes in base64") as refused:
        key_of(secret)
    hidden = secret.removeprefix("whsec_")
    assert len(hidden) < 12 or hidden not in str(refused.value)
