"""People who ask, get answers and judge them: rows in a real database, written as the turns write them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

from storage import answers, artefacts, chats, comparisons, deployments, messages, ratings, releases, turns, users
from storage.db import Database, Session
from storage.records import Answer, ChatKind, Ended, Live, Pick, Seen, Thumb, User

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
SYSTEM = "You are a helpful assistant."
TEMPLATE = "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"


@dataclass
class Community:
    db: Database
    numbers: count[int] = field(default_factory=lambda: count(1))

    def person(self, *, channel: str = "telegram", consents: bool = True) -> User:
        met = self.db.write(users.meet, channel, str(next(self.numbers)), "", None, AT)
        return self.db.write(users.consent, met.id, AT) if consents else met

    def live(self, *, weights: str, path: str | None = None, sha256: str | None = None, tag: str = "base:1") -> Live:
        """The base under `tag`, deployed."""

        def deploy(session: Session) -> None:
            artefact = artefacts.add(
                session,
                run_id=None,
                path=path,
                sha256=sha256,
                quantisation="F16",
                size_bytes=None,
                weights=weights,
                template=TEMPLATE,
                system=SYSTEM,
                parameters={"stop": ["<|im_end|>"]},
                scorecard=None,
                verdict=None,
                created_at=AT,
            )
            release = releases.add(session, tag, artefact.id, AT)
            deployments.deploy(session, release.id, "test", "test", AT)

        self.db.write(deploy)
        live = self.db.read(deployments.live)
        assert live is not None
        return live

    def ask(
        self,
        person: User,
        question: str,
        *texts: str,
        ended: Ended = Ended.COMPLETE,
        system: str = SYSTEM,
        release_id: int | None = None,
    ) -> list[Answer]:
        """A conversation of its own, with one answer for each text."""

        def write(session: Session) -> list[Answer]:
            chat = chats.meet(session, person.channel, person.external_id, ChatKind.PRIVATE, "", AT)
            conversation = chats.begin(session, chat.id, "", person.id, AT)
            message = messages.add(session, conversation.id, person.id, question, f"test:{next(self.numbers)}", AT)
            assert message is not None
            seen = Seen(system, [["message", message.id]], 0, "digest", {})
            given = []
            for text in texts:
                turn = turns.wait(session, conversation.id, message.id, person.id, AT)
                turns.close(session, turn.id, ended, AT, text=text)
                answer = answers.add(session, turn, text, seen, ended, AT, tag="base:1", release_id=release_id)
                given.append(answer)
            return given

        return self.db.write(write)

    def rate(self, person: User, answer: Answer, thumb: Thumb, correction: str | None = None) -> int:
        return self.db.write(ratings.add, answer.id, person.id, thumb, AT, correction=correction).id

    def pick(self, person: User, left: Answer, right: Answer, pick: Pick) -> int:
        return self.db.write(comparisons.add, left.message_id, left.id, right.id, person.id, pick, AT).id
