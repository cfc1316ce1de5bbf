"""What was found of a run, in words: its scorecard, its verdict, its data set, its preflight. Pure; knows no Telegram.

It reads what the trainer left in the database, which an older or newer one may have written: what is not there is left
out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bot.render import clipped
from huigan.texts import text, told

SAMPLES, SAMPLE_UNITS = 3, 220
SIGNS = {"hard": "⛔", "against": "➖", "good": "➕", "idle": "▫️"}


def measured(card: Mapping[str, Any], locale: str) -> Iterator[str]:
    """A line for each measure: what the live release has, and what the candidate."""
    for name in ("recall", "held_out_recall"):
        if read := card.get(name):
            yield _pair(locale, name, f"{read['live']:.0%}", f"{read['candidate']:.0%}")
    for name, shown in (("preferences", "preference_gain"), ("newest", "newest")):
        if read := card.get(name):
            gain = f"{read['mean_gain']:+.2f} ({read['low']:+.2f} … {read['high']:+.2f})"
            yield f"{text(locale, f'report.{shown}')}: {gain}"
    if read := card.get("judged"):
        yield f"{text(locale, 'report.judged')}: {read['candidate']} / {read['candidate'] + read['live']}"
    if read := card.get("perplexity"):
        yield _pair(locale, "perplexity", f"{read['live']:.2f}", f"{read['candidate']:.2f}")
    for read in card.get("general") or ():
        yield _pair(locale, f"general_{read['language']}", f"{read['live']:.2f}", f"{read['candidate']:.2f}")
    if read := card.get("free"):
        yield _pair(locale, "stop_share", f"{read['live_stop_share']:.0%}", f"{read['stop_share']:.0%}")
        yield _pair(locale, "repetition", f"{read['live_repetition']:.0%}", f"{read['repetition']:.0%}")
    if suite := [each for each in card.get("suite") or () if each["live_right"] or each["candidate_right"]]:
        yield f"{text(locale, 'report.suite')}: {', '.join(_kept(each, locale) for each in suite)}"


def _kept(read: Mapping[str, Any], locale: str) -> str:
    name = told(locale, "report", str(read["kind"]))
    lost = f" (−{read['lost']})" if read["lost"] else ""
    return f"{name} {read['live_right']} → {read['candidate_right']}{lost}"


def reasons(verdict: Mapping[str, Any], locale: str) -> Iterator[str]:
    for each in verdict.get("reasons", ()):
        kind = next((kind for kind in ("hard", "good", "idle") if each.get(kind)), "against")
        yield f"{SIGNS[kind]} {told(locale, 'gate', str(each.get('code')), each.get('params'))}"


def samples(card: Mapping[str, Any], locale: str) -> Iterator[str]:
    """Questions with both answers: what was lost first, then those that the two answer differently."""
    given: Sequence[Mapping[str, Any]] = card.get("samples") or ()
    ordered = sorted(
        given, key=lambda each: (each.get("kind") != "lost", each["live"].strip() == each["candidate"].strip())
    )
    for each in ordered[:SAMPLES]:
        sides = (("question", "❓"), ("live", "🅰"), ("candidate", "🅱"))
        lines = [
            f"{sign} {text(locale, f'report.{side}')}: {clipped(each[side], SAMPLE_UNITS) or '…'}"
            for side, sign in sides
        ]
        yield "\n".join(lines)


def data(counts: Mapping[str, Any], locale: str) -> Iterator[str]:
    """What a data set holds, and why the rest was left out."""
    kept = counts.get("kept", {})
    for split in ("train", "held_out"):
        parts = [f"{text(locale, f'report.task_{task}')} {number}" for task, number in kept.get(split, {}).items()]
        if parts:
            yield f"{text(locale, f'report.split_{split}')}: {', '.join(parts)}"
    if dropped := {name: number for name, number in counts.get("dropped", {}).items() if number}:
        listed = ", ".join(f"{told(locale, 'dropped', name)} {number}" for name, number in dropped.items())
        yield f"{text(locale, 'report.dropped')}: {listed}"
    if rows := counts.get("personal", {}).get("rows"):
        yield text(locale, "report.personal", rows=rows)
    if bias := counts.get("length_bias"):
        yield text(locale, "report.length_bias", share=f"{bias['chosen_longer_share']:.0%}", pairs=bias["pairs"])


def preflight(known: Mapping[str, Any], locale: str) -> Iterator[str]:
    """Whether training would fit, and how long it would take."""
    minutes = sum(known.get("minutes", {}).values())
    if minutes:
        yield text(locale, "admin.preflight_minutes", minutes=max(1, round(minutes)))
    for resource, need in known.get("needs", {}).items():
        code = "admin.preflight_fits" if need["needed_gib"] <= need["available_gib"] else "admin.preflight_lacks"
        yield text(locale, code, resource=resource.upper(), needed=need["needed_gib"], available=need["available_gib"])
    for advice in known.get("advice", ()):
        keys = ", ".join(f"{name} = {value}" for name, value in advice.items() if name != "code")
        yield f"→ {advice['code']}: {keys}"


def _pair(locale: str, name: str, live: str, candidate: str) -> str:
    return f"{text(locale, f'report.{name}')}: {live} → {candidate}"
