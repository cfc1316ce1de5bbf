"""From judgements to examples, and which judgements are held back. Pure.

    a correction            → a right answer, and the pair (correction over the answer it corrects)
    a pick                  → a pair
    👍 beside 👎, one message → a pair
    👍                      → a right answer, and a thumb that is up
    👎                      → a thumb that is down
    asked again             → a light pair (second over first) and a light thumb that is down

Asking again is weak evidence: it counts only where nobody judged the first answer, and where the person then went on
from the second or liked it. This module does not know splits, copies or personal data.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import product

from storage.recipe import Data
from storage.records import WHOLE, Comparison, Ended, Rating, Thumb
from trainer import trust
from trainer.feedback import Dropped, Example, Exchange, Feedback, Regeneration, Task
from trainer.trust import Approved, Heard, Vote

Key = tuple[str, int]  # ("rating", id), ("comparison", id), ("again", turn id)


def usable(feedback: Feedback, dropped: Dropped) -> Feedback:
    """Without what may not be used: all authors and the rater consent, and the answer is known whole."""

    def may(user_id: int, *answer_ids: int) -> bool:
        return all(_usable(each, user_id, feedback, dropped) for each in answer_ids)

    ratings = [each for each in feedback.ratings if may(each.user_id, each.answer_id)]
    comparisons = [
        each for each in feedback.comparisons if may(each.user_id, each.left_answer_id, each.right_answer_id)
    ]
    unseen = Dropped()  # nobody gave these on purpose: they are not missed
    again = [
        each
        for each in _told_again(feedback)
        if all(_usable(one, each.user_id, feedback, unseen) for one in (each.first_answer_id, each.second_answer_id))
    ]
    return replace(feedback, ratings=ratings, comparisons=comparisons, regenerations=again)


def _usable(answer_id: int, user_id: int, feedback: Feedback, dropped: Dropped) -> bool:
    exchange = feedback.exchanges.get(answer_id)
    if not dropped.unless(exchange is not None, "answer_unknown") or exchange is None:
        return False
    if not dropped.unless(not exchange.has_images, "images"):
        return False
    return dropped.unless({user_id, *exchange.author_ids} <= feedback.consenting_ids, "no_consent")


def _told_again(feedback: Feedback) -> Iterator[Regeneration]:
    """Those that say something: nobody judged the first answer, and the second was liked, or gone on from."""
    judged = {each.answer_id for each in feedback.ratings}
    compared = {frozenset((each.left_answer_id, each.right_answer_id)) for each in feedback.comparisons}
    judged |= {answer_id for pair in compared for answer_id in pair}
    liked = {(each.user_id, each.answer_id): each for each in feedback.ratings if each.thumb is Thumb.UP}
    disliked = {each.answer_id for each in feedback.ratings if each.thumb is Thumb.DOWN}
    for each in feedback.regenerations:
        rating = liked.get((each.user_id, each.second_answer_id))
        times = [at for at in (each.went_on_at, rating.rated_at if rating else None) if at is not None]
        if times and each.first_answer_id not in judged and each.second_answer_id not in disliked:
            yield replace(each, went_on_at=min(times))


def held_back(feedback: Feedback, data: Data) -> dict[Key, str]:
    """The judgements that do not count, and why: the defences first, then what raters disagree on."""
    votes = [*_votes(feedback)]
    held: dict[Key, str] = {}

    def hold(keys: Iterable[Hashable], reason: str) -> None:
        held.update(dict.fromkeys(keys, reason))  # type: ignore[arg-type]

    def left() -> list[Vote]:
        return [each for each in votes if each.key not in held]

    trusted: Mapping[int, float] = {}
    if data.defences:
        people = [each for each in votes if each.rater_id not in feedback.simulated_ids]
        hold(trust.bursts(people, data.burst_ratings), "quarantined_burst")
        trusted = trust.trusted(left())
        hold(trust.distrusted(left(), trusted, data.trust_bar), "quarantined_trust")
        approved = [each for each in _approved(feedback) if each.key not in held]
        hold(trust.campaigns(approved, [*_heard(feedback)], data.campaign_prompts), "quarantined_campaign")
    held.update(_disagreed(left(), trusted))
    return held


def _disagreed(votes: Sequence[Vote], trusted: Mapping[int, float]) -> dict[Key, str]:
    """Of what some call good and others bad: all of it, or what the few say where most of the trust says the other."""
    by_subject: dict[Hashable, list[Vote]] = defaultdict(list)
    for each in votes:
        by_subject[each.subject].append(each)
    out: dict[Key, str] = {}
    for said in by_subject.values():
        if len({each.choice for each in said}) > 1:
            choices = defaultdict(set)
            for each in said:
                choices[each.rater_id].add(each.choice)
            clear = {rater_id: next(iter(each)) for rater_id, each in choices.items() if len(each) == 1}
            winner = trust.decided(clear, trusted) if len(clear) > 2 else None
            for each in said:
                if winner is None or each.rater_id not in clear:
                    out[each.key] = "disputed"  # type: ignore[index]
                elif each.choice != winner:
                    out[each.key] = "outvoted"  # type: ignore[index]
    return out


def _votes(feedback: Feedback) -> Iterator[Vote]:
    """A correction says of the answer what 👎 says."""
    texts = {answer_id: (each.prompt, each.answer.text.strip()) for answer_id, each in feedback.exchanges.items()}
    numbers: dict[Hashable, int] = {}
    of = {answer_id: numbers.setdefault(said, len(numbers)) for answer_id, said in texts.items()}
    for rating in feedback.ratings:
        exchange = feedback.exchanges[rating.answer_id]
        good = rating.thumb is Thumb.UP and not correction_of(rating, exchange)
        read = len(exchange.answer.text)
        yield Vote(("rating", rating.id), rating.user_id, of[rating.answer_id], good, rating.rated_at, read)
    for comparison in feedback.comparisons:
        pair = comparison.left_answer_id, comparison.right_answer_id
        picked = comparison.chosen_and_rejected
        # A tie is a judgement that takes reading, too; it differs from nothing.
        subject = frozenset(of[each] for each in pair) if picked else ("tie", comparison.id)
        read = sum(len(texts[each][1]) for each in pair)
        choice = of[picked[0]] if picked else None
        yield Vote(("comparison", comparison.id), comparison.user_id, subject, choice, comparison.picked_at, read)


def _approved(feedback: Feedback) -> Iterator[Approved]:
    """Every text that somebody wrote or chose as the right answer."""
    said: list[tuple[Key, int, int, str, datetime]] = []
    for rating in feedback.ratings:
        exchange = feedback.exchanges[rating.answer_id]
        right = correction_of(rating, exchange) or (exchange.answer.text if rating.thumb is Thumb.UP else "")
        said.append((("rating", rating.id), rating.user_id, rating.answer_id, right, rating.rated_at))
    for each in feedback.comparisons:
        if picked := each.chosen_and_rejected:
            text = feedback.exchanges[picked[0]].answer.text
            said.append((("comparison", each.id), each.user_id, picked[0], text, each.picked_at))
    for key, user_id, answer_id, text, at in said:
        if text:
            exchange = feedback.exchanges[answer_id]
            given = "\n".join(content for _, content in exchange.prompt)
            yield Approved(key, user_id, exchange.question, text, at, given)


def _heard(feedback: Feedback) -> Iterator[Heard]:
    """What was asked, and what was answered that nobody approved: what somebody did is told of as theirs."""
    liked = {each.answer_id for each in feedback.ratings if each.thumb is Thumb.UP}
    liked |= {picked[0] for each in feedback.comparisons if (picked := each.chosen_and_rejected)}
    for answer_id, each in feedback.exchanges.items():
        askers = each.author_ids if each.asker_id is None else frozenset({each.asker_id})
        yield Heard(each.question, each.answer.answered_at, "", askers)
        if answer_id not in liked:
            given = "\n".join(content for _, content in each.prompt)
            yield Heard(each.answer.text, each.answer.answered_at, given)


def correction_of(rating: Rating, exchange: Exchange) -> str:
    """The right answer, if the rater wrote one that differs."""
    right = (rating.correction or "").strip()
    return "" if right == exchange.answer.text.strip() else right


def keys_of(example: Example) -> set[Key]:
    """The judgements it is made of."""
    return {
        *(("rating", each) for each in example.rating_ids),
        *(("comparison", each) for each in example.comparison_ids),
        *(("again", each) for each in example.turn_ids),
    }


def examples(feedback: Feedback, data: Data, dropped: Dropped) -> list[Example]:
    """All that can be made of it, the same content as often as it was said."""
    return [
        *_from_ratings(feedback.ratings, feedback.exchanges, dropped),
        *_from_thumbs_on_one_message(feedback.ratings, feedback.exchanges, dropped),
        *_from_comparisons(feedback.comparisons, feedback.exchanges, dropped),
        *(_from_regenerations(feedback, data.regenerate_weight) if data.regenerate_weight > 0 else ()),
    ]


def _from_ratings(ratings: Iterable[Rating], exchanges: Mapping[int, Exchange], dropped: Dropped) -> Iterator[Example]:
    for rating in ratings:
        exchange = exchanges[rating.answer_id]
        ended, text = exchange.answer.ended, exchange.answer.text
        if right := correction_of(rating, exchange):
            yield _rated("answers", exchange, (right,), "correction", [rating])  # whole, however the answer ended
            if dropped.unless(ended in WHOLE, "not_whole"):
                yield _rated("pairs", exchange, (right, text), "correction", [rating])
                yield _rated("thumbs", exchange, (text,), "thumbs", [rating], label=False)
        elif rating.thumb is Thumb.UP:
            if dropped.unless(ended is Ended.COMPLETE, "not_whole"):  # one cut off at its limit would teach not to end
                yield _rated("answers", exchange, (text,), "thumbs", [rating])
                yield _rated("thumbs", exchange, (text,), "thumbs", [rating], label=True)
        elif dropped.unless(ended in WHOLE, "not_whole"):
            yield _rated("thumbs", exchange, (text,), "thumbs", [rating], label=False)


def _from_thumbs_on_one_message(
    ratings: Iterable[Rating], exchanges: Mapping[int, Exchange], dropped: Dropped
) -> Iterator[Example]:
    by_message: dict[int, dict[Thumb, list[Rating]]] = defaultdict(lambda: defaultdict(list))
    for rating in ratings:
        exchange = exchanges[rating.answer_id]
        if not correction_of(rating, exchange):
            by_message[exchange.answer.message_id][rating.thumb].append(rating)
    for thumbs in by_message.values():
        for liked, disliked in product(thumbs[Thumb.UP], thumbs[Thumb.DOWN]):
            if liked.answer_id != disliked.answer_id:
                better, worse = exchanges[liked.answer_id], exchanges[disliked.answer_id]
                if _make_a_pair(better, worse, dropped):
                    texts = (better.answer.text, worse.answer.text)
                    yield _rated("pairs", better, texts, "thumbs", [liked, disliked])


def _from_comparisons(
    comparisons: Iterable[Comparison], exchanges: Mapping[int, Exchange], dropped: Dropped
) -> Iterator[Example]:
    for comparison in comparisons:
        picked = comparison.chosen_and_rejected
        if dropped.unless(picked is not None, "tie") and picked is not None:
            better, worse = (exchanges[each] for each in picked)
            if _make_a_pair(better, worse, dropped):
                yield replace(
                    _rated("pairs", better, (better.answer.text, worse.answer.text), "pick"),
                    rater_ids=frozenset({comparison.user_id}),
                    comparison_ids=frozenset({comparison.id}),
                    rated_at=comparison.picked_at,
                )


def _from_regenerations(feedback: Feedback, weight: float) -> Iterator[Example]:
    unmissed = Dropped()
    for each in feedback.regenerations:
        first, second = feedback.exchanges[each.first_answer_id], feedback.exchanges[each.second_answer_id]
        if _make_a_pair(second, first, unmissed):
            for example in (
                _rated("pairs", second, (second.answer.text, first.answer.text), "again"),
                _rated("thumbs", first, (first.answer.text,), "again", label=False),
            ):
                yield replace(
                    example,
                    rater_ids=frozenset({each.user_id}),
                    turn_ids=frozenset({each.turn_id}),
                    rated_at=each.went_on_at,
                    weight=weight,
                )


def _make_a_pair(better: Exchange, worse: Exchange, dropped: Dropped) -> bool:
    whole = better.answer.ended is Ended.COMPLETE and worse.answer.ended in WHOLE
    return dropped.unless(whole, "not_whole") and dropped.unless(better.prompt == worse.prompt, "prompts_differ")


def _rated(
    task: Task,
    exchange: Exchange,
    answers: tuple[str, ...],
    source: str,
    ratings: Sequence[Rating] = (),
    *,
    label: bool | None = None,
) -> Example:
    return Example(
        task,
        exchange.prompt,
        tuple(text.strip() for text in answers),
        source,
        label,
        conversation_ids=frozenset({exchange.answer.conversation_id}),
        rater_ids=frozenset(each.user_id for each in ratings),
        rating_ids=frozenset(each.id for each in ratings),
        rated_at=min((each.rated_at for each in ratings), default=None),
        owner_id=exchange.owner_id,
        author_ids=exchange.author_ids,
    )


def counted(held: Mapping[Key, str], dropped: Dropped) -> None:
    dropped.reasons.update(Counter(held.values()))
