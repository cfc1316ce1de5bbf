"""The nouns as frozen values, with the closed sets they take. Knows nothing of tables or sessions.

Times end in `_at` and are aware UTC. Ids are the database's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    USER = "user"
    BLOCKED = "blocked"


ADMIN_ROLES = frozenset({Role.OWNER, Role.ADMIN})


class ChatKind(StrEnum):
    PRIVATE = "private"
    GROUP = "group"
    TERMINAL = "terminal"


class Scope(StrEnum):
    """Who shares a conversation in a group; in a private chat there is one person anyway."""

    USER = "user"  # each person has their own, in each thread
    THREAD = "thread"  # all who write in a thread share one


class AttachmentKind(StrEnum):
    IMAGE = "image"


class TurnState(StrEnum):
    WAITING = "waiting"  # its message is stored; another turn of the conversation may be open
    OPEN = "open"  # a process is producing the answer and beats
    CLOSED = "closed"


class Ended(StrEnum):
    """How a turn ended, and with it the answer, if anything was shown."""

    COMPLETE = "complete"
    LENGTH = "length"  # the limit on answer tokens was reached
    STOPPED = "stopped"  # the user pressed Stop
    BROKEN = "broken"  # the stream broke
    INTERRUPTED = "interrupted"  # our process was told to end, or was killed
    FAILED = "failed"  # refused before the first word
    WITHDRAWN = "withdrawn"  # cancelled before it was opened


WHOLE = frozenset({Ended.COMPLETE, Ended.LENGTH})  # answers that a release may be judged by


class Thumb(StrEnum):
    UP = "up"
    DOWN = "down"
    WITHDRAWN = "withdrawn"


class Reason(StrEnum):
    WRONG = "wrong"
    LANGUAGE = "language"
    LONG = "long"
    UNSAFE = "unsafe"
    OTHER = "other"


class OfferedFor(StrEnum):
    """Why somebody was asked which of two answers is better."""

    AGAIN = "again"  # they wanted another answer
    SAMPLED = "sampled"  # at the rate that the admin set


class CardKind(StrEnum):
    """What a message about a run shows."""

    PROGRESS = "progress"
    PROMOTION = "promotion"


class Pick(StrEnum):
    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"


class RunState(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    RELEASED = "RELEASED"
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    REJECTED = "REJECTED"
    SUPERSEDED = "SUPERSEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    BUILT = "BUILT"  # a run that was asked to end with its data set


_S = RunState
RUN_MOVES: frozenset[tuple[RunState, RunState]] = frozenset(
    {
        (_S.QUEUED, _S.RUNNING),
        (_S.QUEUED, _S.CANCELLED),
        (_S.RUNNING, _S.QUEUED),  # worker lost
        (_S.RUNNING, _S.RELEASED),
        (_S.RUNNING, _S.AWAITING_APPROVAL),
        (_S.RUNNING, _S.REJECTED),
        (_S.RUNNING, _S.FAILED),
        (_S.RUNNING, _S.CANCELLED),
        (_S.RUNNING, _S.BUILT),
        (_S.AWAITING_APPROVAL, _S.RELEASED),
        (_S.AWAITING_APPROVAL, _S.REJECTED),
        (_S.AWAITING_APPROVAL, _S.SUPERSEDED),
    }
)
MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class User:
    id: int
    channel: str  # telegram, terminal, simulated
    external_id: str
    name: str
    role: Role
    locale: str | None  # as their channel told it
    chosen_locale: str | None  # by /lang
    consented_at: datetime | None  # None: not asked, or declined
    declined_at: datetime | None
    admitted_at: datetime | None  # by an invitation or an admin; counts where the bot is not open to all
    created_at: datetime

    @property
    def is_admin(self) -> bool:
        return self.role in ADMIN_ROLES

    @property
    def reads(self) -> str | None:
        """The language to write to them in."""
        return self.chosen_locale or self.locale


@dataclass(frozen=True)
class Chat:
    id: int
    channel: str
    external_id: str
    kind: ChatKind
    title: str
    locale: str | None  # chosen for everybody in it
    system: str | None  # overrides the release's system text
    scope: Scope
    admitted_at: datetime | None  # a group that may be answered where the bot is not open to all
    created_at: datetime


@dataclass(frozen=True)
class Conversation:
    """What is said in one chat, thread and by one user between two /new. The newest one is current."""

    id: int
    chat_id: int
    thread: str
    user_id: int
    started_at: datetime


@dataclass(frozen=True)
class Update:
    update_id: int
    body: Mapping[str, Any]
    key: str | None  # updates of one key are handled in their order
    worker: str | None  # the process that has it, for as long as it beats
    beat_at: datetime | None
    received_at: datetime
    handled_at: datetime | None


@dataclass(frozen=True)
class Message:
    id: int
    conversation_id: int
    user_id: int
    text: str
    source: str  # names it in its channel, e.g. "telegram:-100:17"; unique, so a replay inserts nothing
    parent_answer_id: int | None  # the answer it replies to, where the user chose one
    replaces_id: int | None  # the message whose edited version it is
    sent_at: datetime


@dataclass(frozen=True)
class Attachment:
    """A file that came with a message, kept beside the database."""

    id: int
    message_id: int
    kind: AttachmentKind
    name: str
    mime_type: str
    sha256: str
    size_bytes: int
    path: str
    added_at: datetime


@dataclass(frozen=True)
class Turn:
    id: int
    conversation_id: int
    message_id: int
    user_id: int
    state: TurnState
    again: bool  # another answer to a message that has a whole one
    sampled: bool  # nobody asked for that other one: it is made to be compared
    asked_at: datetime
    opened_at: datetime | None
    beat_at: datetime | None
    stop_asked_at: datetime | None  # by somebody whose press reached another process
    worker: str | None
    tag: str | None
    text: str  # shown so far
    ended: Ended | None
    error: str | None  # code, see huigan.texts
    closed_at: datetime | None


@dataclass(frozen=True)
class Seen:
    """Exactly what an answer was given to: rows by id, and the texts no row holds."""

    system: str
    row_ids: Sequence[Sequence[int | str]]  # (kind, id) pairs, oldest first: message, answer, rating
    dropped: int  # messages and answers of the history that did not fit and were left out whole
    template_digest: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    id: int
    turn_id: int
    message_id: int
    conversation_id: int
    text: str
    thinking: str
    deployment_id: int | None
    release_id: int | None
    tag: str
    seen: Seen
    prompt_tokens: int | None
    answer_tokens: int | None
    first_token_seconds: float | None
    total_seconds: float | None
    ended: Ended
    answered_at: datetime


@dataclass(frozen=True)
class Delivery:
    id: int
    answer_id: int
    channel: str
    chat: str
    message: str
    part: int
    delivered_at: datetime


@dataclass(frozen=True)
class Showing:
    """A turn that a channel has to show to its end, and the message in which it does."""

    turn_id: int
    channel: str
    message: str | None  # None: nothing is shown yet
    worker: str | None  # the process that shows it, for as long as it beats
    beat_at: datetime | None
    begun_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class CorrectionPrompt:
    """The channel message that asked a user for the right answer: only a reply to it is a correction."""

    id: int
    answer_id: int
    user_id: int
    channel: str
    chat: str
    message: str
    asked_at: datetime


@dataclass(frozen=True)
class Rating:
    """What one rater says of one answer, whole: the newest row of a rater counts and replaces the older ones."""

    id: int
    answer_id: int
    user_id: int
    thumb: Thumb
    reason: Reason | None
    correction: str | None
    rated_at: datetime


@dataclass(frozen=True)
class ComparisonOffer:
    """Two answers to one message, in the order in which somebody was asked to choose."""

    id: int
    message_id: int
    left_answer_id: int
    right_answer_id: int
    why: OfferedFor
    offered_at: datetime


@dataclass(frozen=True)
class Comparison:
    id: int
    message_id: int
    left_answer_id: int
    right_answer_id: int
    user_id: int
    pick: Pick
    picked_at: datetime

    @property
    def chosen_and_rejected(self) -> tuple[int, int] | None:
        """Answer ids, or None for a tie."""
        if self.pick is Pick.TIE:
            return None
        pair = (self.left_answer_id, self.right_answer_id)
        return pair if self.pick is Pick.LEFT else (pair[1], pair[0])


@dataclass(frozen=True)
class Dataset:
    id: int
    run_id: int | None
    method: str
    rating_watermark: int
    comparison_watermark: int
    counts: Mapping[str, Any]
    filters: Mapping[str, Any]
    sha256: str
    path: str
    created_at: datetime


@dataclass(frozen=True)
class Lineage:
    """One example of a data set and the rows it was made from."""

    example: str  # content hash
    split: str
    rating_id: int | None
    comparison_id: int | None


@dataclass(frozen=True)
class DatasetCopy:
    """Where the files of a data set lie: on which disk, by the name that it has in its HUIGAN_HOME, and in which
    folder. A disk without a name is one of a time when none had any."""

    id: int
    dataset_id: int
    disk: str
    path: str
    made_at: datetime
    cleared_at: datetime | None  # when its files last lost what was taken back


@dataclass(frozen=True)
class Holding:
    """That what a run has learnt holds words which somebody has taken back. It never ceases to be so."""

    id: int
    run_id: int
    since_at: datetime
    asked_at: datetime  # when somebody last took back something that is in it
    withdrawn_at: datetime | None  # when its release was taken out of Ollama for that


@dataclass(frozen=True)
class Run:
    id: int
    lane: str
    state: RunState
    stage: str | None  # progress for people, never control
    progress: Mapping[str, Any]
    attempt: int
    recipe: Mapping[str, Any]
    dataset_only: bool
    why: str  # schedule, command, threshold
    by_user_id: int | None
    worker: str | None
    beat_at: datetime | None
    cancel_asked_at: datetime | None
    error: Mapping[str, Any] | None  # {"code": …, params}
    artefact_id: int | None
    continues_run_id: int | None  # the run whose adapter it went on from
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True)
class RunEvent:
    id: int
    run_id: int
    attempt: int
    before: RunState | None
    after: RunState
    detail: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True)
class RunPoint:
    """What training measured at one step: `loss`, `margin` and the like, by name."""

    id: int
    run_id: int
    attempt: int
    method: str
    step: int
    measures: Mapping[str, float]
    at: datetime


@dataclass(frozen=True)
class RunCard:
    """A channel message that shows how a run goes, or asks whether to promote what it made; edited as that changes."""

    id: int
    run_id: int
    user_id: int
    kind: CardKind
    channel: str
    chat: str
    message: str
    made_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class Artefact:
    """A GGUF that can be served, and how."""

    id: int
    run_id: int | None
    path: str | None  # None: only Ollama has the file
    sha256: str | None
    quantisation: str
    size_bytes: int | None
    weights: str | None  # the 16-bit base it came from: a folder, file or hub name
    template: str
    system: str
    parameters: Mapping[str, Any]
    scorecard: Mapping[str, Any] | None
    verdict: Mapping[str, Any] | None
    created_at: datetime


@dataclass(frozen=True)
class Release:
    id: int  # its number
    tag: str
    artefact_id: int
    created_at: datetime


@dataclass(frozen=True)
class Deployment:
    id: int
    release_id: int
    share: float
    by: str  # "run 7", "user 3", "schedule"
    why: str
    since_at: datetime


@dataclass(frozen=True)
class Live:
    """The release that answers now, with all that a turn needs to know of it."""

    deployment: Deployment
    release: Release
    artefact: Artefact


@dataclass(frozen=True)
class Notice:
    """One line of the outbox: a code with parameters, for one user or for every admin (user_id None)."""

    id: int
    code: str
    params: Mapping[str, Any] = field(default_factory=dict)
    user_id: int | None = None
    undeliverable: str | None = None  # why it never reached its user
    created_at: datetime | None = None
    sent_at: datetime | None = None


@dataclass(frozen=True)
class Invitation:
    """A link that lets people in, or makes them more than users. Of its code only the digest is kept."""

    id: int
    role: Role
    note: str
    uses_left: int
    by_user_id: int | None
    made_at: datetime
    expires_at: datetime
    withdrawn_at: datetime | None


@dataclass(frozen=True)
class AuditEntry:
    id: int
    user_id: int | None
    act: str
    params: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True)
class Setting:
    key: str
    value: Any
    by_user_id: int | None
    set_at: datetime
