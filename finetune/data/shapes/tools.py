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


def tools_of(row: dict) -> tuple[Json, ...]:
    """The functions available in a row, each as ``{"type": "function", "function": {…}}``.

    Raises:
        DataError: ``data_type``, when they are not a list of objects with names.
    """
    tools = parsed(row.get("tools"))
    if is_missing(tools):
        functions = parsed(row.get("functions"))
        tools = functions if isinstance(functions, list) else ([] if is_missing(functions) else [functions])
    if not isinstance(tools, list):
        raise bad("data_type", "'tools' is not a list.", 'Give {"tools": [{"type": "function", …}]}.')
    return tuple(_tool(tool) for tool in tools)


def _tool(tool: Any) -> Json:
    if isinstance(tool, dict):
        function = tool.get("function", tool)
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            return {"type": "function", "function": function}
    raise bad("data_type", "A tool has no function name.", 'Write {"type": "function", "function": {"name": …}}.')


def calls_of(message: dict, remarks: Remarks) -> list[Json]:
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
    return [_call(call, remarks) for call in calls]


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
