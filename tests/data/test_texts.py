"""What a text can hide is found, however long and strange the text is: a slow pattern is a test that hangs."""

import pytest

from finetune.data.texts import has_personal, has_secret

LONG = 200_000
PAYLOAD = "eyJzdWIiOiIxMjM0NTY3ODkw"


@pytest.mark.parametrize("piece", ["eyJ-", "eyJ", "eyJ_eyJ.", f"{PAYLOAD}.,", "hf_-", "-----BEGIN ", "AIza.", "sk- "])
def test_a_long_text_of_what_begins_a_key_holds_none(piece: str) -> None:
    assert not has_secret(f"eyJ -----BEGIN {piece * (LONG // len(piece))}")


@pytest.mark.parametrize("piece", ["a.", "b-", "a@", ".a@a", "a@a.", "@a.b.", "+1 ", "-123"])
def test_a_long_text_of_what_begins_an_address_holds_none(piece: str) -> None:
    assert not has_personal(f"a@{piece * (LONG // len(piece))}_")


@pytest.mark.parametrize(
    "text",
    [
        f"{PAYLOAD}.{PAYLOAD}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r",
        f"Bearer {PAYLOAD}.{PAYLOAD}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r",
        f"token={PAYLOAD}.{PAYLOAD}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r;",
    ],
)
def test_a_web_token_is_a_secret(text: str) -> None:
    assert has_secret(text)


@pytest.mark.parametrize("address", ["ada@b.org", "ada.l+x@mail.dept.faculty.uni.ac.uk", "a@a.b.c.d.e.f.g.h.i.j.org"])
def test_an_address_is_personal_however_many_names_its_domain_has(address: str) -> None:
    assert has_personal(f"Write to {address}, please.")
