"""Measures which columns of each linear layer matter to the trained model, on the prompts and answers of its run.

Forward hooks add up the squares of what each layer is given, llama.cpp's definition (`collect_imatrix`), over whole
conversations as they are served: no padding, no cut. This module does not know how the result is used, nor runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from huigan.llama import adapter, gguf
from huigan.llama import importance as importances
from huigan.llama.gguf import Written
from huigan.llama.importance import Observed
from storage.recipe import Recipe, Stage, Train
from trainer import tuning
from trainer.tokens import Row, Span, end_of_turn_id, sequences
from trainer.training import quiet_libraries

Progress = Callable[[str, int, int], None]
SOURCE = "prompts and approved answers of the run"


def measure(
    weights: Path,
    taught: Path,
    base: Path,
    rows: Mapping[Stage, Sequence[Row]],
    recipe: Recipe,
    tokenizer: Any,
    out: Path,
    *,
    progress: Progress,
) -> Written:
    """Writes the importance matrix for `base` (the GGUF of `weights`) as it was taught, over as much of `rows` as
    the recipe says. Raises what loading does."""
    read = spans(tokenizer, rows, recipe)
    with quiet_libraries():
        model = load(weights, taught, recipe, recipe.training([*rows][-1]))
    with observing(model) as seen, torch.no_grad():
        for done, span in enumerate(read, 1):
            model(input_ids=torch.tensor([span.ids], device=model.device), use_cache=False)
            progress("importance", done, len(read))
    tokens = sum(len(span.ids) for span in read)
    found = named(seen, base)
    return importances.write(out, found, source=SOURCE, texts=len(read), text_tokens=tokens // max(1, len(read)))


def named(seen: Mapping[str, Seen], base: Path) -> dict[str, Observed]:
    """By the names that the layers have in the GGUF."""
    name_of = adapter.gguf_names(gguf.read(base))
    return {name_of(module): each.observed for module, each in seen.items() if each.tokens}


def spans(tokenizer: Any, rows: Mapping[Stage, Sequence[Row]], recipe: Recipe) -> list[Span]:
    """Approved answers with their prompts, in random order, until there are tokens enough; each of them once."""
    end, found = end_of_turn_id(tokenizer), dict[tuple[int, ...], Span]()
    order = [(stage, row) for stage in rows for row in rows[stage] if row.get("label", True)]
    random.Random(recipe.seed).shuffle(order)
    tokens = 0
    for stage, row in order:
        span = next(sequences(tokenizer, row, stage, end))
        if len(span.ids) > recipe.data.max_tokens or span.ids in found:
            continue
        if tokens >= recipe.importance_tokens:
            break
        found[span.ids] = span
        tokens += len(span.ids)
    return list(found.values())


def load(weights: Path, taught: Path, recipe: Recipe, settings: Train) -> Any:
    """The model as it was trained: with the adapter on, or with the tensors that training changed."""
    model = tuning.load_base(weights, settings, in_4bit=tuning.is_in_4bit(recipe, settings))
    if (taught / tuning.CHANGED).is_file():
        tuning.put_back(model, taught)
        return model.eval()
    return tuning.with_adapter(model, taught).eval()


@dataclass
class Seen:
    """The running sums of one layer."""

    squares: torch.Tensor
    tokens: int = 0

    def add(self, inputs: torch.Tensor) -> None:
        flat = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        self.squares += flat.square().sum(dim=0)
        self.tokens += len(flat)

    @property
    def observed(self) -> Observed:
        return Observed(self.squares.cpu().numpy(), self.tokens)


@contextmanager
def observing(model: Any) -> Iterator[dict[str, Seen]]:
    """Sums of the inputs of each linear layer inside a block, by the layer's name in the model without adapter."""
    seen: dict[str, Seen] = {}
    hooks = []
    for path, module in model.named_modules():
        name = path.removeprefix("base_model.model.").removesuffix(".base_layer")
        if isinstance(module, torch.nn.Linear) and ".layers." in f".{name}" and ".lora_" not in name:
            seen[name] = Seen(torch.zeros(module.in_features, device=model.device))
            hooks.append(module.register_forward_pre_hook(adding(seen[name])))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def adding(to: Seen) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], None]:
    return lambda _module, inputs: to.add(inputs[0])
