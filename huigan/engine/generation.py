"""One answer: from a decoded request to the lines of its stream. Knows tags, runners and prompts, no HTTP.

Chat and generate differ in what they are asked with and in the shape of their lines; everything between is one path.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from huigan.engine import description, options
from huigan.engine.description import Tag
from huigan.engine.errors import ApiError
from huigan.engine.prompts import Message, Prompter, without_oldest
from huigan.engine.runners import Busy, Runners
from huigan.engine.template import TemplateError
from huigan.llama.gguf import BadGguf
from huigan.llama.runner import LoadOptions, RequestRefused, Runner, RunnerFailed

Line = dict[str, Any]

_STOPPED = "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error"
_MAX_ADDED_TOKENS = 4  # what a tokenizer puts around a text: BOS, a space
_MIN_BATCH_TOKENS, _MAX_BATCH_TOKENS, _MAX_THREADS = 32, 4096, 512


@dataclass(frozen=True)
class Ask:
    """A request for one answer. `raw` is a prompt to be used as it is, in place of `messages`."""

    model: str
    tag: Tag
    options: Mapping[str, Any]
    keep_alive_seconds: float | None
    messages: tuple[Message, ...] = ()
    raw: str | None = None
    template: str = ""
    context: tuple[int, ...] = ()
    format: Any = None
    logprobs: bool = False
    top_logprobs: int = 0
    truncate: bool = True
    shift: bool = True
    render_only: bool = False
    with_context: bool = False


class Generation:
    def __init__(self, runners: Runners, threads: int) -> None:
        self._runners, self._threads = runners, threads

    async def preload(self, ask: Ask) -> None:
        """Have the tag's file loaded with the request's options. Raises ApiError."""
        load = self._load_options(ask, options.merged(ask.tag.parameters, ask.options))
        try:
            await self._runners.preload(load, str(ask.tag.name), ask.keep_alive_seconds)
        except (Busy, RunnerFailed) as error:
            raise _as_api_error(error) from error

    async def lines(self, ask: Ask, shape: Callable[[str], Line]) -> AsyncGenerator[Line]:
        """The lines of the answer's stream, the last with `done`. Closing this stops it. Raises ApiError."""
        started_ns = time.perf_counter_ns()
        merged = options.merged(ask.tag.parameters, ask.options)
        bounds = options.grammar(ask.format)
        load = self._load_options(ask, merged)
        context = load.context_tokens
        began = False
        try:
            async with self._runners.lease(load, str(ask.tag.name), ask.keep_alive_seconds) as runner:
                loaded_ns = time.perf_counter_ns()
                prompt = await _prompt(runner, ask, context)
                if ask.render_only:
                    yield _stamped(ask, {**shape(""), "done": False, "_debug_info": {"rendered_template": prompt}})
                    return
                request = options.completion_request(merged, context) | bounds | _wanted_logprobs(ask)
                request["prompt"] = await _fitted(runner, ask, prompt, merged["num_keep"], context)
                said: list[str] = []
                async with aclosing(runner.complete(request)) as events:
                    async for event in events:
                        if text := event.get("content", ""):
                            said.append(text)
                            began = True
                            yield _stamped(ask, {**shape(text), "done": False, **_logprobs(event, ask)})
                        if event.get("stop"):
                            last = event
                _check_format(ask, last, "".join(said))
                ended: Line = {**shape(""), "done": True, "done_reason": _reason(last)}
                if ask.with_context:
                    ended["context"] = await runner.tokenize(prompt + "".join(said), special=False)
                yield _stamped(ask, ended | _metrics(last, started_ns, loaded_ns))
        except (Busy, RunnerFailed, RequestRefused, TemplateError) as error:
            raise _as_api_error(error, began=began) from error

    def _load_options(self, ask: Ask, merged: options.Options) -> LoadOptions:
        try:
            trained_tokens = description.read(ask.tag.gguf).trained_tokens
        except BadGguf as error:
            raise ApiError(500, str(error)) from error
        threads = merged["num_thread"]
        return LoadOptions(
            gguf=ask.tag.gguf,
            context_tokens=options.context_tokens(merged, trained_tokens),
            parallel=self._runners.parallel,
            batch_tokens=max(_MIN_BATCH_TOKENS, min(merged["num_batch"], _MAX_BATCH_TOKENS)),
            threads=min(threads, _MAX_THREADS) if threads > 0 else self._threads,
            shift=ask.shift,
        )


async def _prompt(runner: Runner, ask: Ask, context: int) -> str:
    """The text the model goes on from, with the oldest messages dropped where it would not fit."""
    before = await runner.detokenize(list(ask.context)) if ask.context else ""
    if ask.raw is not None:
        return before + ask.raw
    prompter = Prompter(ask.template or ask.tag.template)
    if ask.template or not ask.truncate:
        return before + prompter.render(ask.messages)
    return before + await _fitting(runner, prompter, ask.messages, context)


async def _fitting(runner: Runner, prompter: Prompter, messages: Sequence[Message], context: int) -> str:
    """Render with as many of the newest messages as fit, and every system message; the last stays in any case."""
    least, most = 0, max(0, len(messages) - 1)
    prompt = prompter.render(messages)
    if await _fits(runner, prompt, context):
        return prompt
    while least < most:
        middle = (least + most) // 2
        prompt = prompter.render(without_oldest(messages, middle))
        if await _fits(runner, prompt, context):
            most = middle
        else:
            least = middle + 1
    return prompter.render(without_oldest(messages, most))


async def _fits(runner: Runner, prompt: str, context: int) -> bool:
    if len(prompt.encode()) + _MAX_ADDED_TOKENS < context:  # no token is shorter than a byte
        return True
    return len(await runner.tokenize(prompt, special=True)) < context


async def _fitted(runner: Runner, ask: Ask, prompt: str, keep: int, context: int) -> str | list[int]:
    """The prompt, cut after its first `keep` tokens where it alone is longer than the context."""
    prompt = runner.without_begin(prompt)
    if not ask.truncate or await _fits(runner, prompt, context):
        return prompt
    tokens = await runner.tokenize(prompt, special=True)
    room = context - 1
    keep = min(keep if keep >= 0 else len(tokens), room)
    return [*tokens[:keep], *tokens[len(tokens) - (room - keep) :]]


def _wanted_logprobs(ask: Ask) -> dict[str, int]:
    return {"n_probs": max(ask.top_logprobs, 1)} if ask.logprobs else {}


def _logprobs(event: Mapping[str, Any], ask: Ask) -> Line:
    found = event.get("completion_probabilities")
    return {"logprobs": [_logprob(token, ask.top_logprobs > 0) for token in found]} if ask.logprobs and found else {}


def _logprob(token: Mapping[str, Any], with_top: bool) -> Line:
    shown = {name: token[name] for name in ("token", "logprob", "bytes")}
    return shown | {"top_logprobs": [_logprob(other, False) for other in token["top_logprobs"]]} if with_top else shown


def _check_format(ask: Ask, event: Mapping[str, Any], text: str) -> None:
    """A schema that llama.cpp cannot compile is only complained of in its log, and then binds nothing."""
    if not ask.format or event["stop_type"] != "eos":
        return
    try:
        json.loads(text)
    except ValueError:
        raise ApiError(500, "the answer does not keep to the format: check that it is a valid JSON schema") from None


def _reason(event: Mapping[str, Any]) -> str:
    return "length" if event["stop_type"] == "limit" else "stop"


def _metrics(event: Mapping[str, Any], started_ns: int, loaded_ns: int) -> Line:
    timings = event["timings"]
    return {
        "total_duration": time.perf_counter_ns() - started_ns,
        "load_duration": loaded_ns - started_ns,
        "prompt_eval_count": event["tokens_evaluated"],
        "prompt_eval_duration": int(timings["prompt_ms"] * 1e6),
        "eval_count": event["tokens_predicted"],
        "eval_duration": int(timings["predicted_ms"] * 1e6),
    }


def _stamped(ask: Ask, line: Line) -> Line:
    return {"model": ask.model, "created_at": stamp(datetime.now(UTC)), **line}


def stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _as_api_error(error: Exception, *, began: bool = False) -> ApiError:
    match error:
        case Busy():
            return ApiError(503, str(error))
        case RequestRefused(status=status, body=body):
            return ApiError(status, body)
        case RunnerFailed() if began:
            return ApiError(500, f"an error was encountered while running the model: {error}")
        case RunnerFailed() if not str(error).startswith("llama runner"):
            return ApiError(500, f"{_STOPPED}: {error}")
    return ApiError(500, str(error))
