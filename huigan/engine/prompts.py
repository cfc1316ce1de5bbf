"""Messages into one prompt by a tag's template, as Ollama does it; and the templates for GGUFs that bring only jinja.

Pure. A template that never mentions `.Messages` is rendered once a turn with `.System`, `.Prompt` and `.Response`, and
the last turn ends at `.Response`, where the model goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from huigan.engine import rendering, template


@dataclass(frozen=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True)
class BuiltIn:
    """What a chat template is known by, and what stands for it here."""

    marker: str
    template: str
    stops: tuple[str, ...]


# By marker, because published GGUFs differ in details of their jinja. Like Ollama's own, these drop whatever default
# system prompt the jinja would write: whoever needs one passes it as `system`.
BUILT_INS = (
    BuiltIn(
        "<|im_start|>",
        "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
        ("<|im_start|>", "<|im_end|>"),
    ),
    BuiltIn(
        "<|start_header_id|>",
        "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>{{ end }}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    BuiltIn(
        "<start_of_turn>",
        '{{- range .Messages }}<start_of_turn>{{ if eq .Role "assistant" }}model{{ else }}user{{ end }}\n'
        "{{ .Content }}<end_of_turn>\n{{ end }}<start_of_turn>model\n",
        ("<start_of_turn>", "<end_of_turn>"),
    ),
)
PLAIN = "{{ .Prompt }}"


def built_in(jinja: str) -> BuiltIn | None:
    """The built-in for a GGUF's own chat template, or None where none is known."""
    return next((known for known in BUILT_INS if known.marker in jinja), None)


class Prompter:
    """A parsed template. Raises template.TemplateError where it cannot be parsed."""

    def __init__(self, source: str) -> None:
        nodes = template.parse(source)
        self.names = template.names(nodes)
        if not {"messages", "response"} & self.names:
            nodes = (*nodes, *template.parse("{{ .Response }}"))
        self._nodes = nodes

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt for a conversation. Raises template.TemplateError."""
        collated = collate(messages)
        if "messages" in self.names:
            system = "\n\n".join(message.content for message in messages if message.role == "system")
            listed = [{**_ABSENT, "Role": message.role, "Content": message.content} for message in collated]
            return rendering.render(self._nodes, {**_BLANK, "System": system, "Messages": listed})
        return self._turns(collated)

    def _turns(self, messages: Sequence[Message]) -> str:
        pieces: list[str] = []
        turn = dict(_BLANK)
        for message in messages:
            field, full = _TURN_FIELDS.get(message.role, ("", ()))
            if any(turn[name] for name in full):
                pieces.append(rendering.render(self._nodes, turn))
                turn = dict(_BLANK)
            if field:
                turn[field] = message.content
        last, _ = template.up_to(self._nodes, "Response")
        return "".join(pieces) + rendering.render(last, turn)


_BLANK: dict[str, Any] = {"System": "", "Prompt": "", "Response": "", "Think": False, "IsThinkSet": False}
_ABSENT: dict[str, Any] = {"Thinking": "", "Images": [], "ToolCalls": [], "ToolName": "", "ToolCallID": ""}
# A role's field in a turn, and the fields that must still be empty for it to belong to the turn at hand.
_TURN_FIELDS = {
    "system": ("System", ("Prompt", "Response")),
    "user": ("Prompt", ("Response",)),
    "assistant": ("Response", ()),
}


def collate(messages: Sequence[Message]) -> list[Message]:
    """Neighbours of one role become one message."""
    collated: list[Message] = []
    for message in messages:
        if collated and collated[-1].role == message.role != "tool":
            collated[-1] = Message(message.role, f"{collated[-1].content}\n\n{message.content}")
        else:
            collated.append(message)
    return collated


def without_oldest(messages: Sequence[Message], dropped: int) -> list[Message]:
    """The conversation without its first `dropped` messages, of which the system ones stay."""
    kept = [message for message in messages[:dropped] if message.role == "system"]
    return [*kept, *messages[dropped:]]
