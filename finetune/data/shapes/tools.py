"""Functions a model may call: OpenAI's ``tools`` and ``tool_calls``, and the older ``functions`` and ``function_call``.

A sample row:

    {"messages": [{"role": "user", "content": "Weather in Oslo?"},
                  {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function",
                      "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}]},
                  {"role": "tool", "tool_call_id": "c1", "content": "4 °C"},
                  {"role": "assistant", "content": "It is 4 °C."}],
     "tools": [{"type": "function", "function": {"name": "weather", "parameters": {…}}}]}
"""

import json
from typing import Any

from finetune.data.shapes.content import Remarks, bad, is_missing, parsed
from finetune.records import Json


def tools_of(row: dict, remarks: Remarks) -> tuple[Json, ...]:
    """The functions available in a row, each as ``{"type": "function", "function": {…}}``.

    Raises:
        DataError: ``data_type``, when they are not a list of objects with names.
    """
    tools = parsed(row.get("tools"))
    if is_missing(tools):
        functions = parsed(row.get("functions"))
        tools = functions if isinstance(functions, list) else ([] if is_missing(functions) else [functions])
    if is_missing(tools) or tools == []:
        config = parsed(row.get("toolconfig", row.get("tool_config")))
        tools = config.get("tools", []) if isinstance(config, dict) else []
    if not isinstance(tools, list):
        raise bad("data_type", "'tools' is not a list.", 'Give {"tools": [{"type": "function", …}]}.')
    found = [_tool(one) for tool in tools for one in _declared(tool)]
    full = [_without_nulls(tool, None) for tool in found]
    if full != found:
        _say_padding(remarks)
    return tuple(full)


def _declared(tool: Any) -> list[Any]:
    """The functions of one entry: Gemini lists several in one."""
    several = tool.get("functionDeclarations", tool.get("function_declarations")) if isinstance(tool, dict) else None
    return several if isinstance(several, list) and several else [tool]


def _tool(tool: Any) -> Json:
    if isinstance(tool, dict):
        function = next((tool[key] for key in ("function", "toolSpec") if tool.get(key) is not None), tool)
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            return {"type": "function", "function": _with_parameters(function)}
    raise bad("data_type", "A tool has no function name.", 'Write {"type": "function", "function": {"name": …}}.')


def _with_parameters(function: Json) -> Json:
    """Anthropic and Bedrock call the schema of a function's parameters by another name."""
    for name in ("input_schema", "inputSchema"):
        schema = function.get(name)
        if isinstance(schema, dict) and function.get("parameters") is None:
            schema = schema["json"] if isinstance(schema.get("json"), dict) else schema
            rest = {key: value for key, value in function.items() if key not in (name, "parameters")}
            return rest | {"parameters": schema}
    return function


def _without_nulls(value: Any, within: str | None) -> Any:
    """A JSON schema without keys that are null: only ``const`` and values of ``enum`` or ``examples`` may be, and the
    ``default`` of a property that allows null."""
    if isinstance(value, list):
        return value if within in ("enum", "examples") else [_without_nulls(item, None) for item in value]
    if not isinstance(value, dict) or within in ("const", "default", "examples", "example"):
        return value
    names = within == "properties"  # there a key is a name that somebody chose
    may = () if names else ("const", "default") if allows_null(value) else ("const",)
    return {
        key: item if item is None else _without_nulls(item, None if names else key)
        for key, item in value.items()
        if item is not None or key in may
    }


def allows_null(schema: Any) -> bool:
    """Whether a JSON schema allows null.

    Example:
        >>> allows_null({"type": ["string", "null"]}), allows_null({"type": "string"})
        (True, False)
    """
    if not isinstance(schema, dict):
        return schema is True
    if not {"type", "enum", "const", "anyOf", "oneOf", "allOf"} & schema.keys():
        return True  # nothing forbids it
    kinds = schema.get("type")
    if kinds is not None and (kinds == "null" or (isinstance(kinds, list) and "null" in kinds)):
        return True
    if schema.get("nullable") is True or None in _listed(schema, "enum"):
        return True
    return any(allows_null(one) for key in ("anyOf", "oneOf") for one in _listed(schema, key))


def _listed(schema: Json, key: str) -> list[Any]:
    return found if isinstance(found := schema.get(key), list) else []


def without_padding(messages: tuple[Json, ...], tools: tuple[Json, ...], remarks: Remarks) -> tuple[Json, ...]:
    """Messages whose calls lack the arguments that are null though their function's schema does not allow null.

    Parquet and Arrow give each call the arguments of all functions in the file, those of others as null.
    """
    if not any("tool_calls" in message for message in messages):
        return messages
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") for tool in tools}
    cleaned = tuple(
        {**message, "tool_calls": [_unpadded(call, schemas) for call in message["tool_calls"]]}
        if "tool_calls" in message
        else message
        for message in messages
    )
    if cleaned != messages:
        _say_padding(remarks)
    return cleaned


def _say_padding(remarks: Remarks) -> None:
    remarks.add(
        "null_padding",
        "Null keys of tools and calls, which Parquet adds for the keys of other rows, were left out.",
        "Nothing to do.",
    )


def _unpadded(call: Json, schemas: Json) -> Json:
    function = call["function"]
    if function["name"] not in schemas or not isinstance(function["arguments"], dict):
        return call
    given, schema = function["arguments"], schemas[function["name"]]
    return {**call, "function": {**function, "arguments": _fitting(given, schema or {}, whole=True)}}


def _fitting(value: Any, schema: Any, whole: bool = False) -> Any:
    """A value without the nulls that its schema does not allow. Of the `whole` arguments none may be null that the
    schema does not name; within them an object may be free to hold anything."""
    schema = schema if isinstance(schema, dict) else {}
    if isinstance(value, list):
        return [_fitting(item, schema.get("items")) for item in value]
    known = schema.get("properties") or {}
    if not isinstance(value, dict) or not isinstance(known, dict) or not (known or whole):
        return value
    return {
        key: _fitting(item, known.get(key))
        for key, item in value.items()
        if item is not None or (key in known and allows_null(known[key]))
    }


def calls_of(message: dict, remarks: Remarks, among_parts: list[Json]) -> list[Json]:
    """The tool calls of an assistant message, with arguments as objects: chat templates serialise them themselves.

    Raises:
        DataError: ``data_type``, when a call has no function name.
    """
    calls = parsed(message.get("tool_calls"))
    if is_missing(calls):
        old = parsed(message.get("function_call"))
        calls = [] if is_missing(old) else [{"type": "function", "function": old}]
    if not isinstance(calls, list):
        raise bad("data_type", "'tool_calls' is not a list.", "Write a list of calls.")
    return [_call(call, remarks) for call in calls or among_parts]


def _call(call: Any, remarks: Remarks) -> Json:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise bad("data_type", "A tool call has no function name.", 'Write {"function": {"name": …, "arguments": …}}.')
    kept = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {
        **kept,
        "type": "function",
        "function": {"name": function["name"], "arguments": _arguments(function, remarks)},
    }


def _arguments(function: dict, remarks: Remarks) -> Any:
    arguments = function.get("arguments", function.get("parameters"))
    if is_missing(arguments):
        return {}
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        remarks.add(
            "tool_arguments",
            f"The arguments of a call to {function['name'][:40]!r} are not valid JSON.",
            "Correct them, or the model learns to write broken calls.",
            "warning",
        )
        return arguments
