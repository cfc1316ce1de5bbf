"""What was measured of a candidate beside the live file: the values that the gate judges. Knows no bars.

What could not be measured, for want of held-out feedback or controls, is None and named in `lacking`: no number is
made up for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Lacking = Literal["pairs", "answers", "corrections", "controls", "clear_languages", "comparable_lengths"]


@dataclass(frozen=True)
class Preferences:
    """Held-out pairs by how much more the candidate prefers the chosen answer than the live file does.

    The gain of a pair is the difference of the two files' log-probability margins, in nats: DPO's implicit reward with
    the live file as reference. `accuracy` is the share of gains above `noise`; what lies within counts half.
    """

    pairs: int
    accuracy: float
    mean_gain: float
    low: float
    high: float  # low and high: 95 % bootstrap interval of the mean
    noise: float


@dataclass(frozen=True)
class Perplexity:
    """On held-out answers that people liked or wrote."""

    answers: int
    tokens: int
    live: float
    candidate: float

    @property
    def ratio(self) -> float:
        return self.candidate / self.live


@dataclass(frozen=True)
class Recall:
    """Share of corrected questions whose free answer holds the correction or comes close, and mean closeness (chrF)."""

    questions: int
    live: float
    candidate: float
    live_chrf: float
    candidate_chrf: float


@dataclass(frozen=True)
class Free:
    """What the candidate's own greedy answers look like."""

    answers: int
    stop_share: float
    repetition: float  # share of answers that loop
    language_match: float | None  # share in the script of the asker, where that is clear
    length_drift: float | None  # against what people approved of, else the live answer
    live_stop_share: float
    live_repetition: float


@dataclass(frozen=True)
class Controls:
    """Questions of the recipe's own that the live file answers rightly, and how many of them the candidate does not."""

    questions: int
    live_right: int
    lost: int

    @property
    def loss(self) -> float:
        return self.lost / self.live_right if self.live_right else 0.0


@dataclass(frozen=True)
class Fidelity:
    """What merging and quantising left of the training: the candidate beside the 16-bit base with the adapter on, over
    held-out answers. Divergences are KL, in nats a token; `same_top` is the share of tokens where both expect the same.
    """

    tokens: int
    mean_divergence: float
    p99_divergence: float
    same_top: float
    perplexity_ratio: float


@dataclass(frozen=True)
class Sample:
    """One question with both answers, for people to read."""

    kind: Literal["taught", "held_out", "control"]
    question: str
    live: str
    candidate: str
    wanted: str | None  # a correction or approved answer, or a control's key


@dataclass(frozen=True)
class Scorecard:
    """`effect` is False where the adapter changes nothing: then nothing else was measured."""

    effect: bool = True
    finite: bool = True  # False: the file gives log-probabilities that are no numbers
    compared_with: Literal["live", "base", "none"] = "none"
    quantisation: str = ""
    preferences: Preferences | None = None
    perplexity: Perplexity | None = None
    recall: Recall | None = None
    held_out_recall: Recall | None = None
    free: Free | None = None
    controls: Controls | None = None
    fidelity: Fidelity | None = None
    lacking: tuple[Lacking, ...] = ()
    samples: tuple[Sample, ...] = ()
