"""What was measured of a candidate beside the live file: the values that the gate judges. Knows no bars.

What could not be measured, for want of held-out feedback or cases, is None or empty and named in `lacking`: no number
is made up for it. Every interval is at 95 %, of the paired difference of the two files, drawn by conversation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Lacking = Literal["pairs", "answers", "corrections", "cases", "clear_languages", "comparable_lengths", "judge"]
# Below this an interval says little: from so few conversations the bootstrap draws the same few samples again.
MIN_CONVERSATIONS = 5
MIN_PAIRS, MIN_ANSWERS = 5, 3


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
    high: float  # low and high: of the mean gain
    noise: float
    conversations: int
    accuracy_low: float
    accuracy_high: float
    gains: tuple[float, ...] = ()  # of each pair, for people to see
    since: str = ""  # of the newest slice: when its first pair was rated

    @property
    def is_enough(self) -> bool:
        return self.pairs >= MIN_PAIRS and self.conversations >= MIN_CONVERSATIONS

    @property
    def visible(self) -> float:
        """A change smaller than this would not have shown."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Perplexity:
    """On held-out answers that people liked or wrote."""

    answers: int
    tokens: int
    live: float
    candidate: float
    low: float
    high: float  # low and high: of the ratio

    @property
    def ratio(self) -> float:
        return self.candidate / self.live


@dataclass(frozen=True)
class General(Perplexity):
    """On frozen text that has nothing to do with any feedback; `answers` counts its paragraphs."""

    language: str


@dataclass(frozen=True)
class Endings:
    """Mean log-probability of the end of turn where an answer that people liked ends.

    Free answers are read less far than some base rambles; this is seen of every file.
    """

    answers: int
    conversations: int
    live: float
    candidate: float
    low: float
    high: float  # low and high: of the difference


@dataclass(frozen=True)
class Recall:
    """Share of corrected questions whose free answer holds the correction or comes close, and mean closeness (chrF)."""

    questions: int
    live: float
    candidate: float
    live_chrf: float
    candidate_chrf: float
    low: float
    high: float  # low and high: of the difference of the shares
    conversations: int

    @property
    def is_enough(self) -> bool:
        return self.conversations >= MIN_CONVERSATIONS


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
    live_language_match: float | None = None


@dataclass(frozen=True)
class Kept:
    """Cases of one kind of the regression suite: how many each file answers rightly, and how many were lost on the way
    from one to the other."""

    kind: str
    cases: int
    live_right: int
    candidate_right: int
    lost: int

    @property
    def loss(self) -> float:
        return self.lost / self.live_right if self.live_right else 0.0

    @property
    def gained(self) -> int:
        return self.candidate_right - (self.live_right - self.lost)


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
class Judged:
    """What a judge model said of both files' answers to held-out questions, asked in both orders.

    Only where both orders agree does it count: `candidate` and `live` are answers preferred, `ties` those that it, or
    their very text, makes equal, `swayed` those where the order decided. `failed` and `unasked` say nothing of anybody.
    """

    tag: str
    questions: int
    candidate: int
    live: int
    ties: int
    swayed: int
    failed: int
    unasked: int
    low: float
    high: float  # low and high: of the candidate's share of the decided ones
    conversations: int  # that the decided ones come from

    @property
    def decided(self) -> int:
        return self.candidate + self.live

    @property
    def share(self) -> float:
        return self.candidate / self.decided if self.decided else 0.5

    @property
    def is_enough(self) -> bool:
        return self.conversations >= MIN_CONVERSATIONS


@dataclass(frozen=True)
class Sample:
    """One question with both answers, for people to read."""

    kind: Literal["taught", "held_out", "control", "lost"]
    question: str
    live: str
    candidate: str
    wanted: str | None  # a correction or approved answer, or a case's key
    about: str = ""  # of which kind a case is that was lost


@dataclass(frozen=True)
class Scorecard:
    """`effect` is False where the adapter changes nothing: then nothing else was measured."""

    effect: bool = True
    finite: bool = True  # False: the file gives log-probabilities that are no numbers
    compared_with: Literal["live", "base", "none"] = "none"
    quantisation: str = ""
    preferences: Preferences | None = None
    newest: Preferences | None = None  # the held-out pairs that were rated last, alone
    perplexity: Perplexity | None = None
    general: tuple[General, ...] = ()
    endings: Endings | None = None
    recall: Recall | None = None
    held_out_recall: Recall | None = None
    free: Free | None = None
    suite: tuple[Kept, ...] = ()
    judged: Judged | None = None
    fidelity: Fidelity | None = None
    lacking: tuple[Lacking, ...] = ()
    samples: tuple[Sample, ...] = ()
