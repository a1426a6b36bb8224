import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.errors import ConfigError
from controlplane.ingest.redaction import RedactionRule, Redactor, is_card, is_iban


def redacted(text: str, *rules: RedactionRule, built_in: bool = True) -> str:
    (found,) = Redactor(rules, built_in=built_in).redact(pa.array([text])).to_pylist()
    return str(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jo.doe+x@mail.example.com now", "write to [email] now"),
        # Test numbers of the card networks and the IBAN registry's example.
        ("card 4111 1111 1111 1111, thanks", "card [card], thanks"),
        ("card 5555-5555-5555-4444", "card [card]"),
        ("order 4111 1111 1111 1112", "order 4111 1111 1111 1112"),
        ("pay DE89 3704 0044 0532 0130 00 today", "pay [iban] today"),
        ("pay DE88 3704 0044 0532 0130 00 today", "pay DE88 3704 0044 0532 0130 00 today"),
        ("call +49 30 901820 or (555) 123-4567", "call [phone] or [phone]"),
        (f"key sk-ant-api03-{'Ab1' * 9} end", "key [api_key] end"),
        ("AKIAIOSFODNN7EXAMPLE", "[api_key]"),
        (f"ghp_{'a1' * 18} github_pat_{'a1' * 11}", "[api_key] [api_key]"),
        (f"xoxb-{'12' * 6}-ab hf_{'Ab' * 17} glpat-{'x_' * 10}", "[api_key] [api_key] [api_key]"),
        (f"AIza{'Sy' * 17}Q, ASIA{'A1' * 8}", "[api_key], [api_key]"),
        (f"bearer eyJ{'hb' * 9}.eyJ{'zd' * 9}.{'Sf' * 20}", "bearer [token]"),
        (
            f"-----BEGIN EC PRIVATE KEY-----\n{'MHc' * 30}\n-----END EC PRIVATE KEY-----",
            "[private_key]-----END EC PRIVATE KEY-----",
        ),
        (f"our own: cp_ingest_01hf2k_{'0f' * 32}.", "our own: [api_key]."),
        ("0000 0000 0000 0000", None),  # passes Luhn, and is nobody's
        ("1137 tokens in 61.5 seconds, gpt-4o-2024-08-06", None),
        ("The answer is 42.", None),
    ],
)
def test_what_identifies_is_taken_out_and_the_rest_stands(text: str, expected: str | None) -> None:
    assert (expected or text) == redacted(text)


SECRETS = {
    "card": ["4111111111111111", "4111 1111 1111 1111"],
    "iban": ["DE89370400440532013000", "DE89 3704 0044 0532 0130 00"],
    "api_key": [f"sk-proj-{'Ab1' * 9}", "AKIAIOSFODNN7EXAMPLE", f"ghp_{'a1' * 18}"],
    "token": [f"eyJ{'hb' * 9}.eyJ{'zd' * 9}.{'Sf' * 20}"],
    "email": ["jo.doe@mail.example.com"],
    "phone": ["+49 30 901820", "(555) 123-4567", "555-123-4567"],
}


@pytest.mark.parametrize(("name", "secret"), [(n, one) for n in SECRETS for one in SECRETS[n]])
def test_json_hides_nothing(name: str, secret: str) -> None:
    """Messages are JSON in an attribute, tool arguments JSON in JSON: a line break is `\\n` there."""
    said, expected = [], []
    for before in ("it is ", "it is\n", "it is\t", "卡号", '"', "é: ", "/", "="):
        for is_ascii in (True, False):
            text, clean = f"{before}{secret}\nthanks", f"{before}[{name}]\nthanks"
            for _ in range(3):
                said.append(text)
                expected.append(clean)
                text, clean = (json.dumps(one, ensure_ascii=is_ascii) for one in (text, clean))
    assert expected == Redactor().redact(pa.array(said)).to_pylist()


def test_own_rules_come_after_the_built_in_ones() -> None:
    rule = RedactionRule("badge", r"\bEMP-[0-9]{5}\b")
    assert "[badge] wrote to [email]" == redacted("EMP-12345 wrote to a@b.example", rule)
    assert "[badge] a@b.example" == redacted("EMP-12345 a@b.example", rule, built_in=False)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("Bad Name", "x"),
        ("long", "x" * 513),
        ("empty", ""),
        ("everywhere", "x*"),
        ("backwards", r"(a)\1"),
        ("unclosed", "("),
        ("huge", "(x{1000}){1000}"),
    ],
)
def test_a_rule_that_can_not_be_one_stops_the_start(name: str, pattern: str) -> None:
    with pytest.raises(ConfigError):
        Redactor([RedactionRule(name, pattern)])


def test_too_many_rules_stop_the_start() -> None:
    with pytest.raises(ConfigError):
        Redactor([RedactionRule(f"r{i}", "x") for i in range(65)])


def test_a_pattern_that_backtracks_elsewhere_takes_linear_time() -> None:
    rule = RedactionRule("slow", r"(a+)+$")
    assert redacted("a" * 100_000 + "b", rule, built_in=False).endswith("b")


@given(st.text(max_size=200))
def test_text_without_a_digit_or_sign_is_left_alone(text: str) -> None:
    plain = "".join(c for c in text if not c.isdigit() and c not in "@_-")
    assert plain == redacted(plain)


@given(st.lists(st.integers(0, 9), min_size=12, max_size=18))
def test_luhn_by_its_definition(body: list[int]) -> None:
    """Exactly one check digit makes a number pass (ISO/IEC 7812-1 annex B)."""
    text = "".join(map(str, body))
    passing = [d for d in range(10) if is_card(f"{text}{d}")]
    all_same = len(set(body)) == 1
    assert 1 == len(passing) or (all_same and len(passing) <= 1)


def test_iban_examples_of_the_registry() -> None:
    assert is_iban("GB82 WEST 1234 5698 7654 32")
    assert is_iban("FR14 2004 1010 0505 0001 3M02 606")
    assert not is_iban("GB82 WEST 1234 5698 7654 33")
