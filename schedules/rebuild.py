"""Whether a release is due to be made anew because somebody took back what it learnt. Pure.

By night, for everybody who took something back since the last one at once: at the cron's next firing, or at three where
there is none. Nothing new needs to have been rated for it; but enough must be left, as for any other run. One that was
made and turned down is not made once more of the same data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from schedules.policy import BY_THE_CLOCK, Decision, Facts, NextFiring, Reason

NIGHTLY = "0 3 * * *"
WHY = "rebuild"
# Reasons that are none against a rebuild: it is due for another reason than new ratings, and at a time of its own; and
# what people took back is not kept for a trial's sake.
NO_HINDRANCES = frozenset({"nothing_new", "not_yet", "too_few_new", "no_schedule", "on_trial"})


def decide(
    usual: Decision,
    facts: Facts,
    asked_at: datetime | None,
    next_firing: NextFiring,
    turned_down: int | None = None,
    can_start: Callable[[datetime], datetime] = lambda at: at,
) -> Decision:
    """`usual` is what is decided without it; a run that it queues serves as well. `asked_at` None: nothing is to be
    made anew. `turned_down`: the run that made it anew already, of the same data. `can_start`: when one that is due at
    a time can."""
    if asked_at is None or usual.enqueue:
        return usual
    if turned_down is not None:
        return replace(usual, reasons=(Reason("rebuild_turned_down", {"run": turned_down}), *usual.reasons))
    hindrances = tuple(each for each in usual.reasons if each.code not in NO_HINDRANCES)
    fired_at = next_firing(max(filter(None, (asked_at, facts.last_queued_at, facts.cron_set_at))))
    is_due = fired_at is not None and fired_at <= facts.at
    if hindrances or not is_due:
        waits_for_clock = all(each.code in BY_THE_CLOCK for each in hindrances)
        due_at = fired_at if not is_due else facts.at if waits_for_clock else None
        starts = (usual.starts_at, None if due_at is None else can_start(due_at))
        others = (each for each in usual.reasons if each.code != "no_schedule")  # for this starts one
        reasons = (Reason("rebuild_wanted"), *others)
        return replace(usual, reasons=reasons, starts_at=min(filter(None, starts), default=None))
    waits = () if facts.trainer_lives else (Reason("no_trainer"),)
    return replace(usual, enqueue=True, why=WHY, reasons=waits, lapses=False)
