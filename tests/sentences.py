"""Every text of the page's that is written in the code, by reading the code: what a catalogue must have.

A text with values in it is a template: ``f"{n} rows"`` is "{0} rows". A choice between constants in it makes a text
each: ``f"{n} row{'s' if n > 1 else ''}"`` is "{0} rows" and "{0} row". HTML comes apart at its tags.

Example:
    >>> python('say(f"{n} row{\\'s\\' if n > 1 else \\'\\'} held out.")')
    {'{0} rows held out.': 1, '{0} row held out.': 1}
"""

import ast
import itertools
import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

from jinja2 import nodes

from finetune.ui import html as templates
from finetune.ui.languages.html import in_html

ROOT = Path(templates.__file__).parents[1]
SENTENCE = re.compile(r"(?<=[.!?…])\s+(?=\S)")
PLACE = re.compile(r"\{\d\}")
LONG = re.compile(r"\{\d\} [^\W\d_]{3,}|[^\W\d_]{3,}[,:]? \{\d\}|.{8,}\.$")
"""Texts of one word that are sentences, or that have a value beside it."""

UNITS = {"MB", "GB", "kB", "MiB", "min", "SHA", "Hub", "sha256", "SQL", "JSON", "LoRA", "SHA-256", "tokens/s"}
UNSEEN = {
    *("elem_id", "elem_classes", "js", "js_on_load", "storage_key", "code", "variant", "size", "name", "key", "mode"),
    *("kind", "type", "encoding", "errors", "api_visibility", "show_progress", "trigger_mode", "elem", "language"),
}
"""Keyword arguments that nobody reads."""

DRAWN = ("label", "info", "placeholder", "value", "title")
UNREAD = (ast.Compare, ast.Subscript, ast.Assert)
UNSEEN_CALLS = {
    *("compile", "get", "getattr", "replace", "split", "rsplit", "startswith", "endswith", "removeprefix"),
    *("removesuffix", "partition", "rpartition", "strip", "setattr", "field", "print", "encode", "strftime", "debug"),
    *("info_log", "warning", "error", "exception", "execute", "executescript", "TypeVar", "macros", "sub", "fullmatch"),
    *("match", "search", "findall", "split_text", "getLogger", "pop", "glob", "hasattr", "index", "cast", "ValueError"),
    *("TypeError", "RuntimeError", "Abandoned", "AssertionError", "KeyError", "Event", "Thread", "Literal"),
}
"""Calls whose strings nobody reads; exceptions other than ours are bugs, and logged."""


def normal(text: str) -> str:
    """A text as a key: without what joins it to others, its places numbered from 0."""
    text = " ".join(unescape(text).split())
    text = re.sub(r"(\{\d\}\s?){2,}(?=\W|$)", lambda found: "{0}" + (" " if found[0].endswith(" ") else ""), text)
    text = re.sub(r"(?:(?<=[.!?…])\s*\{\d\})+$|^\{\d\}(?=[A-Z])", "", text)
    text = re.sub(r"^[\s,;:.…)(·–-]+|[\s,;:(·]+$", "", text)
    text = re.sub(r"^\((?!.*\))|(?<!\()\)\.?$", "", text) if text.count("(") != text.count(")") else text
    count = itertools.count()
    return re.sub(r"\{\d\}", lambda _: f"{{{next(count)}}}", text)


def readable(text: str) -> bool:
    """Whether there is anything to translate in a key: a word that is more than a unit or a name."""
    words = re.findall(r"[^\W\d_]{2,}", PLACE.sub(" ", text))
    return bool([word for word in words if word not in UNITS]) and not re.fullmatch(r"[\w.-]*[_/.][\w./-]*", text)


# Python


def python(source: str) -> dict[str, int]:
    """The texts of a Python file with at least two words, and those of components however short; with their lines."""
    tree = ast.parse(source)
    found: dict[str, int] = {}
    for node, seen in _strings(tree, False):
        for text in _variants(node):
            for piece in pieces(text):
                short = " " not in PLACE.sub("", piece).strip() and not LONG.search(piece)
                if readable(piece) and (seen or not short or "</" in text):
                    found.setdefault(piece, node.lineno)
    return found


def _strings(node: ast.AST, seen: bool) -> Iterator[tuple[Any, bool]]:
    """Strings that may be read, and whether they are a component's own (then one word counts too)."""
    if isinstance(node, UNREAD) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        return
    if isinstance(node, ast.Constant):
        yield from [(node, seen)] if isinstance(node.value, str) else []
    elif isinstance(node, ast.JoinedStr):
        yield node, seen
        for value in (one.value for one in node.values if isinstance(one, ast.FormattedValue)):
            yield from () if _chosen(value) or _times(value) else _strings(value, False)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant):
        yield node, seen
    elif isinstance(node, ast.Call):
        yield from _call(node, seen)
    else:
        for child in _children(node):
            yield from _strings(child, seen)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    skipped = {"annotation", "returns", "decorator_list", "keys"}
    for name, value in ast.iter_fields(node):
        if name not in skipped:
            yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, ast.AST))


def _call(node: ast.Call, seen: bool) -> Iterator[tuple[Any, bool]]:
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if isinstance(function, ast.Attribute):
        if name == "format" and isinstance(function.value, ast.Constant):
            yield node, seen
            return
        yield from _strings(function.value, False)
    if name in UNSEEN_CALLS:
        return
    drawn = isinstance(function, ast.Attribute) and getattr(function.value, "id", "") == "gr" and name[:1].isupper()
    drawn = drawn or name in (
        "update",
        "Download",
        "Item",
        "Advice",
        "Field",
        "Preset",
        "Sample",
        "Fix",
        "Format",
        "Option",
    )
    for argument in node.args:
        yield from _strings(argument, drawn)
    for keyword in node.keywords:
        if keyword.arg not in UNSEEN:
            yield from _strings(
                keyword.value, drawn and keyword.arg in ("label", "info", "placeholder", "value", "title")
            )


def _variants(node: Any) -> list[str]:
    """A string's texts: places for its values, one text for each choice between constants in it."""
    if isinstance(node, ast.Constant):
        return [node.value]
    if isinstance(node, ast.Call):
        return [re.sub(r"\{[^{}]*\}", "{0}", node.func.value.value)]  # type: ignore[attr-defined]
    if isinstance(node, ast.BinOp):
        return [re.sub(r"%[-+.\d]*[a-z]", "{0}", node.left.value).replace("%%", "%")]  # type: ignore[attr-defined]
    parts = [_options(value) for value in node.values]
    return ["".join(some) for some in itertools.islice(itertools.product(*parts), 16)]


def _times(node: Any) -> bool:
    """``"s" * (n > 1)``"""
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Mult)
        and isinstance(getattr(node.left, "value", 0), str)
    )


def _chosen(node: Any) -> bool:
    return isinstance(node, ast.IfExp) and all(isinstance(one, ast.Constant) for one in (node.body, node.orelse))


def _options(value: Any) -> list[str]:
    if isinstance(value, ast.Constant):
        return [value.value.replace("{", "{{").replace("}", "}}") if PLACE.search(value.value) else value.value]
    inner = value.value
    if _chosen(inner):
        return [str(inner.body.value), str(inner.orelse.value)]  # type: ignore[attr-defined]
    if _times(inner):
        return [inner.left.value, ""]
    return ["{0}"]


# HTML and templates


def pieces(text: str) -> Iterator[str]:
    """The keys in a text: itself, or the runs and labels of its HTML."""
    if re.search(r"=>|\(event|document\.|^SELECT |^[.#]\w+ \{", text):
        return
    if not re.search(r"<[/a-z!]", text) and "{% " not in text:
        yield from _sentences(text)
        return
    if "{{ " in text or "{% " in text:
        yield from template(text)
        return
    yield from _runs(text)


def _sentences(text: str) -> Iterator[str]:
    yield from filter(None, map(normal, SENTENCE.split(" ".join(unescape(text).split()))))


def _runs(html: str) -> Iterator[str]:
    """What the page would translate in a piece of HTML: asked of the function that does."""
    found: list[str] = []

    def said(text: str) -> str:
        found.append(text)
        return text

    in_html(html, said)
    for text in found:
        yield from _sentences(text)


def template(source: str) -> set[str]:
    """The texts of a Jinja template: of its HTML with every branch taken and not taken, and of what it passes on."""
    tree = templates._environment.parse(source)
    found: set[str] = set()
    bodies = [tree.body, *(node.body for node in tree.find_all((nodes.Macro, nodes.CallBlock)))]
    for body in bodies:
        branches = [one for part in body for one in _branches(part)]
        for wanted in _choices(branches):
            found.update(_runs("".join(_flat(part, wanted) for part in body)))
    for node in tree.find_all((nodes.Call, nodes.Assign, nodes.Concat, nodes.For)):
        for text in _passed(node.iter if isinstance(node, nodes.For) else node):
            if not text.strip().startswith(("ba-", "{:")):
                found.update(pieces(re.sub(r"%[-+.\d]*[a-z]|\{[^{}]*\}", "{0}", text).replace("%%", "%")))
    return {one for one in found if readable(one)}


def _passed(node: Any) -> Iterator[str]:
    """The strings that an expression passes on; not those that it compares, or tells a filter."""
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        yield node.value
    if isinstance(node, nodes.Compare | nodes.Getitem | nodes.Test):
        return
    for child in [node.node] if isinstance(node, nodes.Filter) and node.node else node.iter_child_nodes():
        yield from _passed(child)


def _branches(node: Any) -> Iterator[Any]:
    if isinstance(node, nodes.Macro | nodes.CallBlock):
        return
    if isinstance(node, nodes.If | nodes.CondExpr):
        yield node
    for child in node.iter_child_nodes():
        yield from _branches(child)


def _choices(branches: list[Any]) -> Iterator[Callable[[Any], bool]]:
    for most in (True, False):
        yield lambda one, most=most: most
        for other in branches:
            yield lambda one, most=most, other=other: most if one is not other else not most


def _flat(node: Any, wanted: Callable[[Any], bool]) -> str:
    """A template's node as text, for one choice at each branch."""
    if isinstance(node, nodes.TemplateData):
        return str(node.data)
    if isinstance(node, nodes.Const):
        return str(node.value)
    if isinstance(node, nodes.CondExpr):
        chosen = node.expr1 if wanted(node) else node.expr2
        return _flat(chosen, wanted) if isinstance(chosen, nodes.Const | nodes.CondExpr) else "{0}"
    if isinstance(node, nodes.Output):
        return "".join(_flat(one, wanted) for one in node.nodes)
    if isinstance(node, nodes.If):
        chosen = node.body if wanted(node) else [*node.elif_, *node.else_][:1] if node.elif_ else node.else_
        return "".join(_flat(one, wanted) for one in chosen)
    if isinstance(node, nodes.For):
        return "".join(_flat(one, wanted) for one in [*node.body, *node.else_])
    if isinstance(node, nodes.Macro | nodes.CallBlock | nodes.Assign | nodes.FromImport | nodes.Import):
        return "<hr>" if isinstance(node, nodes.CallBlock) else ""
    if isinstance(node, nodes.Filter) and node.name == "format" and isinstance(node.node, nodes.Const):
        return re.sub(r"%[-+.\d]*[a-z]", "{0}", node.node.value).replace("%%", "%")
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name not in ("range",):
        return "<hr>"  # a macro's: HTML of its own
    return "{0}"
