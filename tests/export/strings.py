"""Strings that tokenizers disagree about: a fixed list, and as many drawn ones as wanted (seeded)."""

import random
import unicodedata

FIXED = [
    "", " ", "  ", "   a", "a ", "a  b", "\n", "\n\n", "\n\n\n", " \n ", "\r\n", "\r\n\r\nx", "\t", "\t\tx",
    "a\tb", "Hello world", "hello  world", "I'm", "I'M", "we'll they've you'd it's don't", "'s 't 're",
    "O'Brien's", "’s", "0", "12", "123", "1234567890", " 1", "  1", "3.14159", "1,000,000", "1e-5", "٣٤٥",
    "१२३", "½ ² ③ Ⅳ", "0x1F", "v2.0.1", "def f(x):\n    return x ** 2\n",
    "for (int i=0;i<10;i++) { a[i] += 1; }", "SELECT * FROM t WHERE a >= 'x';",
    '{"key": [1, 2.5, null, true], "text": "a\\"b"}', "<div class='x'>&nbsp;</div>",
    "https://a.example/b?c=d&e=f#g", "日本語のテキスト", "中文字符，标点。", "한국어 문장", "Привет, мир!",
    "Γειά σου Κόσμε", "שלום עולם", "مرحبا بالعالم", "ไทย", "हिन्दी", "Zürich naïve café Ångström", "ﬁ ﬂ", "ß ẞ",
    "İstanbul ıı", "ﷺ", "🙂", "👩‍👩‍👧‍👦", "🇨🇭🇯🇵", "👍🏽", "a🙂b", "🙂🙂🙂", "\u00a0", "a\u00a0b", "\u2003x",
    "\u200b", "\u200d", "\ufeffx", "\u3000あ", "\u2028", "…", "—", "“quoted”", "‘x’", "e\u0301", "n\u0303o",
    "\u0301", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L", "𝔘𝔫𝔦", "𒀀", "\U0010ffff", "\x00", "\x01\x7f", "�",
    "<|im_start|>", "<|im_end|>user", "<|endoftext|>", "<s></s>", "<bos>", "<end_of_turn>", "<|eot_id|>", "▁",
    "▁▁a", "Ġ", "Ċ", "!!!", "...", "---", "=====", "a.b.c", "a/b\\c", "@#$%^&*()", "C++ C#", "$5.00", "50%",
    "#hash", "@name", "_a_b_", "~/x", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ABCdefGHI", "camelCaseWord",
    "snake_case_word", "MiXeD123caSE", "x" * 300,
]  # fmt: skip

PIECES = [
    "hello", "World", " the", "don't", "they'll", "2024", "7", "3.5", "\n", "\n\n", "\t", "  ", "    ", " ",
    "def ", "return", "()", "{}", "[0]", "==", "->", ";", ":", ",", ".", "?!", "“", "”", "é", "ü", "ñ", "日本",
    "語", "中", "한국", "да", "нет", "αβ", "שלום", "سلام", "हि", "🙂", "👍🏽", "🇨🇭", "👩‍👧", "\u00a0",
    "\u200b", "½", "²", "٣", "http://", "a@b.c", "\\n", '"', "'", "`", "<b>", "</b>", "&amp;", "#", "$", "%",
    "_", "-", "—", "…", "\r\n", "x1y2", "CamelCase", "UPPER", "e\u0301",
]  # fmt: skip


def varied(count: int, seed: int = 0, composed: bool = False) -> list[str]:
    """The fixed strings and drawn ones, `count` in all; `composed` ones only in Unicode's composed form (NFC).

    A third are pieces in any order, a third any characters of any script, a third words with odd spaces.
    """
    draw = random.Random(seed)
    texts = list(FIXED)
    while len(texts) < count:
        match len(texts) % 3:
            case 0:
                texts.append("".join(draw.choices(PIECES, k=draw.randint(1, 20))))
            case 1:
                texts.append("".join(_character(draw) for _ in range(draw.randint(1, 24))))
            case _:
                words = draw.choices(PIECES, k=draw.randint(2, 12))
                texts.append("".join(word + " " * draw.choice([0, 1, 1, 1, 2, 3]) for word in words))
    return [unicodedata.normalize("NFC", text) if composed else text for text in texts[:count]]


def _character(draw: random.Random) -> str:
    blocks = [(0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x5FF), (0x600, 0x9FF), (0x3040, 0x30FF), (0x4E00, 0x9FFF)]
    blocks += [(0xAC00, 0xD7A3), (0x2000, 0x2BFF), (0x1F300, 0x1FAFF), (0x10000, 0x10FFF)]
    return chr(draw.randint(*draw.choice(blocks)))
