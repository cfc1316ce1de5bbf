"""/why: which release gave an answer, and what it was given."""

from __future__ import annotations

from dataclasses import dataclass

from storage import answers, artefacts, deployments, releases
from storage.db import Session
from storage.records import Answer, Deployment, Release


@dataclass(frozen=True)
class Origin:
    answer: Answer
    release: Release | None  # None: it was given before releases had numbers
    deployment: Deployment | None
    run_id: int | None  # None: nobody trained it here


def of_answer(session: Session, answer_id: int) -> Origin:
    """Raises LookupError."""
    answer = answers.get(session, answer_id)
    if answer.release_id is None:
        return Origin(answer, None, None, None)
    release = releases.get(session, answer.release_id)
    live = deployments.of_tag(session, release.tag)
    artefact = artefacts.get(session, release.artefact_id)
    return Origin(answer, release, live.deployment if live else None, artefact.run_id)
