"""Every encoding people send: read rightly, and said when it was a guess."""

import codecs

import pytest

from finetune.data.read import read_text
from finetune.errors import DataError
from tests.data.read.conftest import codes, errors, lines, values

TEXT = '{"a": "Grüße – “naïve” café"}\n{"a": "日本語 😀"}\n'
WESTERN = "prompt,completion\nOù est l’hôtel ?,Près du café\nWas heißt „Straße“?,Ein Weg für Autos\n"


@pytest.mark.parametrize(
    ("mark", "encoding", "name"),
    [
        (b"", "utf-8", "utf-8"),
        (codecs.BOM_UTF8, "utf-8", "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16-le", "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16-be", "utf-16"),
        (codecs.BOM_UTF32_LE, "utf-32-le", "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32-be", "utf-32"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_an_encoding_that_says_its_name_is_no_guess(taken, mark: bytes, encoding: str, name: str, end: str) -> None:
    table, rows = taken(mark + TEXT.replace("\n", end).encode(encoding))
    assert values(rows) == [{"a": "Grüße – “naïve” café"}, {"a": "日本語 😀"}]
    assert (table.encoding, lines(rows), codes(table)) == (name, [1, 2], {})


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("content", [TEXT, "a,b\n1,2\n", '[{"a": 1}]'])
def test_utf16_without_a_mark_is_guessed(taken, encoding: str, content: str) -> None:
    table, rows = taken(content.encode(encoding))
    assert (table.encoding, table.notes[0].code) == (encoding, "encoding_guessed")
    assert encoding in table.notes[0].message
    assert not errors(rows)


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("cp1252", WESTERN),
        ("cp1252", "a,b\ncafé,x\n"),
        ("cp1252", "price,label\n€ 10,“cheap”\n"),
        ("cp1251", "вопрос,ответ\n" + "Как дела сегодня?,Сегодня хороший день для прогулки\n" * 3),
        ("cp932", "質問,答え\n" + "こんにちは、元気ですか。,今日はいい天気ですね。\n" * 3),
        ("gb18030", "问题,回答\n" + "你好，今天天气怎么样？,今天天气很好，我们去公园散步吧。\n" * 3),
        ("cp949", "질문,답\n" + "안녕하세요 오늘 날씨가 좋네요,공원에 갑시다\n" * 3),
    ],
)
def test_other_encodings_are_guessed_and_said(taken, encoding: str, content: str) -> None:
    table, rows = taken(content.encode(encoding), "rows.csv")
    assert table.encoding == encoding
    assert codes(table)["encoding_guessed"] in (1, 2)
    assert table.notes[0].severity == "warning"
    header, first = content.split("\n")[:2]
    assert rows[0].value == dict(zip(header.split(","), first.split(","), strict=True))


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1250", "Jaké je hlavní město České republiky?,Praha je hlavní město České republiky.\n"),
        ("cp1250", "Kolik lidí žije v Ostravě?,Přibližně 280 tisíc. Může jich být víc.\n"),
        ("cp1250", "Čo je bryndza?,Mäkký ovčí syr. Aké máš otázky? Ježko sa ešte môže vrátiť.\n"),
        ("cp1250", "Milyen idő lesz ma?,Esős, de később kisüt a nap. Egyszerű szabály.\n"),
        ("cp1250", "Kdaj začne šola?,Začne se ob osmih. Leži ob reki, v bližini je še kaša.\n"),
        ("cp1252", "Où est la bibliothèque ?,Près de l'église. Bien sûr, elle est fermée en août.\n"),
        ("cp1252", "Perché il cielo è blu?,La luce blu è diffusa di più. Così è, ma lunedì può variare: È già là.\n"),
        ("cp1252", "Hvor er søen?,Søen er nær skoven på Fyn. Rødgrød med fløde.\n"),
        ("cp1252", "Quais são as opções?,Há informações, lições e canções. Ele propõe três páginas.\n"),
        ("cp1252", "Mis on Eesti pealinn?,Tallinn. Õpetaja ütles sõna, šokolaad on hea, garaaž ka, õhtu ja põõsas.\n"),
        ("cp1252", "Què és això?,És la llengua catalana, però també és més fàcil.\n"),
    ],
)
@pytest.mark.parametrize("times", [1, 20])
def test_the_letters_decide_between_western_and_central_europe(taken, encoding: str, text: str, times: int) -> None:
    table, rows = taken(("prompt,completion\n" + text * times).encode(encoding), "rows.csv")
    assert table.encoding == encoding
    assert rows[0].text == text.rstrip("\n")


def test_latin1_far_into_a_large_file_is_found_before_the_first_row(taken) -> None:
    content = b'{"a": "plain"}\n' * 100_000 + '{"a": "it’s"}\n'.encode("cp1252")
    table, rows = taken(content)
    assert table.encoding == "cp1252"
    assert rows[-1].value == {"a": "it’s"}
    assert codes(table) == {"encoding_guessed": 100_001}


def test_a_few_bad_bytes_in_utf8_reject_their_rows_only(taken) -> None:
    good = '{"a": "Grüße, naïve café"}\n'.encode()
    table, rows = taken(good * 5 + b'{"a": "caf\xe9"}\n' + good * 5)
    assert errors(rows) == {6: "invalid_encoding"}
    assert codes(table) == {"encoding_damaged": 6}
    assert rows[-1].value == {"a": "Grüße, naïve café"}


def test_a_replacement_character_that_was_written_as_such_is_text(taken) -> None:
    _, rows = taken('{"a": "\ufffd"}')
    assert values(rows) == [{"a": "\ufffd"}]


def test_control_characters_stay_in_the_text(taken) -> None:
    _, rows = taken(b"a,b\nx\x00y\x07,z\n" + b"plain,text\n" * 5, "rows.csv")
    assert rows[0].value == {"a": "x\0y\x07", "b": "z"}


@pytest.mark.parametrize("content", [b"\0" * 400, bytes(range(256)) * 8, b"\x00\x01\x02\x03rest\xff\xfe"])
def test_binary_data_is_named_as_such(taken, content: bytes) -> None:
    with pytest.raises(DataError, match="binary data"):
        taken(content, "rows.csv")


def test_pasted_text_is_never_guessed() -> None:
    table = read_text("a,b\ncafé,“x”")
    assert next(table.rows).value == {"a": "café", "b": "“x”"}
    assert not table.notes
