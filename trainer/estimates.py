"""Whether a run fits this machine and how long it will take, said before it trains: what `trainer.preflight` is told.

It does not know how any of that is reckoned, nor what the stages do.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from huigan.turns.prompts import estimate_tokens
from storage import deployments
from storage.recipe import Recipe
from trainer import dataset, machine, preflight, suite
from trainer.dataset import Built
from trainer.preflight import Preflight, Reading

if TYPE_CHECKING:
    from trainer.stages import Work

log = logging.getLogger(__name__)


def foretell(work: Work, built: Built) -> None:
    """For a run that ends with its data set: what training on it would need."""
    live = work.db.read(deployments.live)
    if live is not None and live.artefact.weights is not None:
        say_whether_it_fits(work, live.artefact.weights, built)
    work.tell("dataset", "", 1, 1)


def say_whether_it_fits(work: Work, weights: str, built: Built) -> Preflight | None:
    """In the log, in the run's folder and beside its progress: an estimate on the safe side is no reason to refuse, for
    a batch that does not fit is halved. None where it is not known."""
    estimate = preflight_of(work.recipe, built, weights, work.home, endpoint=work.endpoint)
    if estimate is None:
        return None
    told = estimate.to_dict()
    (work.folder / "preflight.json").write_text(json.dumps(told, indent=1))
    work.note("preflight", told)
    log.info("run %d: about %.0f minutes; needs %s", work.run.id, estimate.minutes, told["needs"])
    for advice in told["advice"]:
        log.warning("run %d may not fit: %s", work.run.id, advice)
    return estimate


def preflight_of(
    recipe: Recipe, built: Built, weights: str, home: Path, *, endpoint: str | None = None
) -> Preflight | None:
    """Whether a run of `recipe` over that data set, on top of `weights`, would fit this machine, and how long it would
    take. None where there is nothing to train on, or the shape of the weights is not known before they are here."""
    from trainer.weights import are_here, config_of

    rows = dataset.rows_to_train(built)
    config = config_of(weights, home / "weights", endpoint=endpoint)
    if config is None or not rows or not all(rows.values()):
        return None
    home.mkdir(parents=True, exist_ok=True)
    texts = ["".join(str(value) for value in row.values()) for stage in rows for row in rows[stage]]
    try:
        return preflight.preflight(
            config,
            recipe,
            {stage: len(rows[stage]) for stage in rows},
            machine.here(home),
            mean_tokens=fmean(map(estimate_tokens, texts)),
            reading=reading_of(recipe, built),
            fetched=are_here(weights, home / "weights"),
        )
    except ValueError as error:
        log.warning("%s: %s", weights, error)
        return None


def reading_of(recipe: Recipe, built: Built) -> Reading:
    """At most: questions that are asked twice are not told apart."""
    held_out, bars = built.counts["kept"]["held_out"], recipe.gate
    corrected = min(built.counts["kept"]["train"]["answers"], bars.max_generations)
    asked = min(sum(held_out.values()), bars.max_generations)
    # A case is answered at less length: it counts as that part of a question.
    most = min(bars.max_generated_tokens, recipe.generate.num_predict)
    cases = len(suite.chosen(suite.own(), bars.max_cases)) * min(1.0, bars.max_case_tokens / most)
    pairs, answers = min(held_out["pairs"], bars.max_pairs), min(held_out["answers"], bars.max_answers)
    return Reading(
        2 * pairs + answers + 2 * bars.max_paragraphs,  # of general text, in two languages
        corrected + asked + len(dataset.controls_of(built.folder)) + math.ceil(cases),
    )
