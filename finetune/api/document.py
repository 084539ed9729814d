"""The OpenAPI document for people: a page of the server (``/v1/docs``), and docs/api.md."""

from finetune.records import Json

INTRODUCTION = (
    "OpenAI's API for files, fine-tuning jobs, models and chat. At home no key is needed; on a shared server, send the "
    "key that the page gives you as `Authorization: Bearer KEY`. Errors come in OpenAI's envelope: "
    '`{"error": {"message", "type", "param", "code"}}`.'
)


def as_markdown(document: Json) -> str:
    """Every call, with what it takes.

    Example:
        >>> as_markdown(app.openapi()).splitlines()[0]
        '## Files'
    """
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append(_call(document, method, path, operation))
    return "\n\n".join(f"## {name}\n\n" + "\n\n".join(calls) for name, calls in groups.items())


def _call(document: Json, method: str, path: str, operation: Json) -> str:
    lines = [f"### `{method.upper()} /v1{path}`", operation.get("description", "")]
    rows = [
        f"| `{one['name']}` | {_type(document, one['schema'])} | {'yes' if one.get('required') else ''} |"
        for one in operation.get("parameters", [])
    ]
    for body in operation.get("requestBody", {}).get("content", {}).values():
        schema = _resolved(document, body["schema"])
        needed = schema.get("required", [])
        rows += [
            f"| `{name}` | {_type(document, one)} | {'yes' if name in needed else ''} |"
            for name, one in schema.get("properties", {}).items()
        ]
    if rows:
        lines.append("| takes | type | required |\n|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join(lines)


def _resolved(document: Json, schema: Json) -> Json:
    options = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    schema = options[0] if len(options) == 1 else schema
    name = schema.get("$ref", "").rsplit("/", 1)[-1]
    return document["components"]["schemas"][name] if name else schema


def _type(document: Json, schema: Json) -> str:
    """A type in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return _type(document, document["components"]["schemas"][name])
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        names = [_type(document, one) for one in options if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(names))
    if values := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return " or ".join(f"`{value}`" for value in values)
    if schema.get("type") == "array":
        return f"list of {_type(document, schema.get('items', {}))}"
    if schema.get("type") == "object" and "properties" in schema:
        return "object (" + ", ".join(f"`{name}`" for name in schema["properties"]) + ")"
    return str(schema.get("type", "anything"))


def as_html(document: Json) -> str:
    """The same as a page that needs no script and asks no other server."""
    from markdown_it import MarkdownIt

    text = f"# {document['info']['title']}\n\n{INTRODUCTION}\n\n{as_markdown(document)}"
    body = MarkdownIt().enable("table").render(text)
    style = "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    style += "td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top}code{overflow-wrap:anywhere}"
    title = f"<title>API · {document['info']['title'].replace('&', '&amp;')}</title>"
    view = '<meta name="viewport" content="width=device-width,initial-scale=1">'
    return f'<!doctype html><html lang="en"><meta charset="utf-8">{view}{title}<style>{style}</style><body>{body}'
