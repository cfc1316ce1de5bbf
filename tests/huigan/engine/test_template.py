"""The subset of Go templates: what it renders, what it refuses and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from huigan.engine import rendering, template
from huigan.engine.prompts import BUILT_INS, Message, Prompter, built_in, collate, without_oldest

MESSAGES = [{"Role": "system", "Content": "短"}, {"Role": "user", "Content": "你好"}]
VALUES: dict[str, Any] = {"Messages": MESSAGES, "A": 1, "B": 0, "C": "c", "Empty": ""}


def render(source: str) -> str:
    return rendering.render(template.parse(source), VALUES)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("plain }} text", "plain }} text"),
        ("a {{- .C -}} b", "acb"),
        ("a\n {{- /* gone }} */ -}} \n b", "ab"),
        ("{{ if .B }}x{{ else if .A }}y{{ else }}z{{ end }}", "y"),
        ("{{ if eq .A 0 1 }}one of them{{ end }}", "one of them"),
        ("{{ if and .A (or .B .C) }}T{{ end }}", "T"),
        ("{{ or .Empty .C }}", "c"),
        ("{{ if not .Empty }}T{{ end }}", "T"),
        ("{{ range .Messages }}{{ .Role }}:{{ .Content }};{{ end }}", "system:短;user:你好;"),
        ("{{ range $i, $m := .Messages }}{{ if $i }},{{ end }}{{ $m.Role }}{{ $.A }}{{ end }}", "system1,user1"),
        ("{{ range $i, $_ := .Messages }}{{ if eq (len (slice $.Messages $i)) 1 }}last{{ end }}{{ end }}", "last"),
        ("{{ range .Empty2 }}x{{ else }}none{{ end }}", "none"),
        ("{{ range .Messages }}{{ .Role }}{{ break }}{{ end }}", "system"),
        ("{{ range .Messages }}{{ if eq .Role `system` }}{{ continue }}{{ end }}{{ .Role }}{{ end }}", "user"),
        ("{{ $x := 1 }}{{ if .A }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ $x := 1 }}{{ if .A }}{{ $x := 2 }}{{ end }}{{ $x }}", "1"),
        ("{{ with .C }}{{ . }}{{ end }}", "c"),
        ('{{ "quoted \\"}}\\n" }}', 'quoted "}}\n'),
        ("{{ .C | len | eq 1 }}", "true"),
        ("{{ len `你` }}", "3"),
        ("{{ (index .Messages 1).Content }}", "你好"),
        ("{{ .Nothing }}", "<no value>"),
        ("{{ json .Messages }}", '[{"Role":"system","Content":"短"},{"Role":"user","Content":"你好"}]'),
    ],
)
def test_it_renders_as_go_does(source: str, text: str) -> None:
    assert render(source) == text


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("{{ .Nope", "template: :1: unclosed action"),
        ("one\ntwo {{ .Nope", "template: :2: unclosed action"),
        ("{{ if .A }}", "template: :1: unexpected EOF"),
        ("{{ end }}", "template: :1: unexpected {{end}}"),
        ("{{ else }}", "template: :1: unexpected {{else}}"),
        ("{{ upper .A }}", 'template: :1: function "upper" not defined'),
        ("{{ $x }}", 'template: :1: undefined variable "$x"'),
        ("{{ if .A }}{{ $x := 1 }}{{ end }}{{ $x }}", 'template: :1: undefined variable "$x"'),
        ("{{ }}", "template: :1: missing value for command"),
        ("{{ if }}{{ end }}", "template: :1: missing value for if"),
        ('{{ "open }}', "template: :1: unterminated quoted string"),
        ("{{ /* open }}", "template: :1: unclosed comment"),
        ("{{ (.A }}", "template: :1: unclosed left paren"),
        ("{{ .A % 2 }}", "template: :1: unrecognized character in action: U+0025 '%'"),
        ("{{ break }}", "template: :1: {{break}} outside {{range}}"),
        ('{{ define "x" }}{{ end }}', 'template: :1: unexpected "define"'),
    ],
)
def test_it_refuses_in_gos_words(source: str, complaint: str) -> None:
    with pytest.raises(template.TemplateError) as refused:
        template.parse(source)
    assert str(refused.value).startswith(complaint)


@pytest.mark.parametrize("source", ["{{ len 3 }}", "{{ index .Messages 9 }}", "{{ .C.D }}", "{{ range .C }}{{ end }}"])
def test_what_goes_wrong_while_rendering_is_a_template_error(source: str) -> None:
    with pytest.raises(template.TemplateError):
        render(source)


def test_nesting_without_end_is_refused_not_crashed_on() -> None:
    with pytest.raises(template.TemplateError, match="too deeply"):
        template.parse("{{ if .A }}" * 5000)
    with pytest.raises(template.TemplateError, match="too deeply"):
        template.parse("{{ " + "(" * 5000 + " }}")


PIECES = [
    "{{",
    "}}",
    "{{-",
    "-}}",
    " if ",
    " range ",
    " end ",
    " else ",
    " .A ",
    " $x ",
    ":=",
    "|",
    "(",
    ")",
    '"',
    "`",
    "/*",
]


@given(st.lists(st.sampled_from([*PIECES, "{{ end }}", "{{ if .A }}", "{{ range .Messages }}", "text"]), max_size=12))
def test_whatever_is_written_either_renders_or_is_refused(pieces: list[str]) -> None:
    outcome: str | template.TemplateError
    try:
        outcome = render("".join(pieces))
    except template.TemplateError as error:
        outcome = error
    assert isinstance(outcome, str) or str(outcome).startswith("template: ")


@given(st.text(alphabet=st.characters(exclude_characters="{")))
def test_text_without_actions_is_left_alone(text: str) -> None:
    assert render(text) == text


CONVERSATION = [
    Message("system", "S"),
    Message("user", "q1"),
    Message("assistant", "a1"),
    Message("user", "q2"),
]


def test_a_template_with_messages_gets_them_all() -> None:
    prompter = Prompter("{{ .System }}|{{ range .Messages }}{{ .Role }}={{ .Content }} {{ end }}")
    assert prompter.render(CONVERSATION) == "S|system=S user=q1 assistant=a1 user=q2 "


def test_a_template_without_messages_is_rendered_once_a_turn_and_ends_where_the_answer_begins() -> None:
    prompter = Prompter("{{ if .System }}<{{ .System }}>{{ end }}[{{ .Prompt }}]{{ .Response }}\n")
    assert prompter.render(CONVERSATION) == "<S>[q1]a1\n[q2]"


def test_a_template_without_a_place_for_the_answer_gets_one_at_its_end() -> None:
    assert Prompter("{{ .System }} {{ .Prompt }}").render(CONVERSATION[1:]) == " q1a1 q2"


def test_neighbours_of_one_role_become_one_message() -> None:
    said = [Message("user", "a"), Message("user", "b"), Message("tool", "c"), Message("tool", "d")]
    assert collate(said) == [Message("user", "a\n\nb"), Message("tool", "c"), Message("tool", "d")]


def test_dropping_the_oldest_keeps_what_the_system_said() -> None:
    assert without_oldest(CONVERSATION, 3) == [CONVERSATION[0], CONVERSATION[3]]


@pytest.mark.parametrize("known", BUILT_INS, ids=[known.marker for known in BUILT_INS])
def test_every_built_in_renders_a_conversation_and_ends_with_the_assistants_turn(known: Any) -> None:
    prompt = Prompter(known.template).render(CONVERSATION)
    assert built_in(f"{{% jinja with {known.marker} %}}") is known
    assert prompt.index("S") < prompt.index("q1") < prompt.index("a1") < prompt.index("q2")
    assert prompt.rstrip().split(known.marker)[-1].startswith(("assistant", "model"))
    assert any(stop in prompt for stop in known.stops)
