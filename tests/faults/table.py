"""Every fault there is, in the order in which the page shows them, and which of them make the short form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.faults import chats, engines, keepers, runs, trials
from tests.faults.matrix import Fault
from trainer.pipeline import STAGES

TALKING = "while people write"
CHECKPOINT = "runs/*/train/**/checkpoint-*/"
ROTTEN = {
    "checkpoint's adapter": ("train", CHECKPOINT + "adapter_model.safetensors"),
    "checkpoint's optimiser": ("train", CHECKPOINT + "optimizer.pt"),
    "checkpoint's state": ("train", CHECKPOINT + "trainer_state.json"),
    "trained adapter": ("merge", "runs/*/train/**/adapter_model.safetensors"),
    "16-bit base": ("quantise", "bases/*.f16.gguf"),
    "candidate, unscored": ("score", "runs/*/candidate.gguf"),
    "candidate, scored": ("release", "runs/*/candidate.gguf"),
}


def of_chats() -> list[Fault]:
    found = [
        ("killed", "bot", "killed", TALKING, chats.killed, {"rounds": 5}),
        ("killed", "bot", "killed", "as it begins", chats.killed_as_it_begins, {"rounds": 4}),
        ("told to end", "bot", "told to end", TALKING, chats.told_to_end, {"rounds": 3}),
        ("database away", "bot", "database locked", TALKING, chats.database_locked, {}),
        ("database away", "bot", "database gone", TALKING, chats.database_gone, {}),
        ("two of it", "two bots", "one file", TALKING, chats.two_bots, {}),
        ("updates", "Telegram", "updates twice", TALKING, chats.updates_twice, {}),
        ("updates", "Telegram", "updates out of order", TALKING, chats.updates_out_of_order, {}),
        ("429", "Telegram", "429 storm", TALKING, chats.flood, {"times": 12}),
        ("Telegram fails", "Telegram", "failing", TALKING, chats.telegram_fails, {"times": 8}),
        *(("Ollama " + how, "Ollama", how, TALKING, chats.ollama_fails, {"how": how}) for how in chats.OLLAMA),
    ]
    return [
        Fault("disk full", "bot", "disk full", TALKING, chats.disk_full),
        *(Fault(*place, chats.play, {"strikes": [(strike, told)]}) for *place, strike, told in found),
    ]


def of_engines() -> list[Fault]:
    found = [Fault("killed", "engine", "killed", "at work", engines.killed, {"rounds": 5})]
    found += [
        Fault("rot", "engine's blob", how, "between two lives", engines.blob_rots, {"how": how}) for how in runs.ROT
    ]
    return [*found, Fault("two of it", "two engines", "one folder", "at work", engines.two_engines)]


def of_keepers() -> list[Fault]:
    working = "while it has a child"
    return [
        Fault("killed", "scheduler", "killed", "as a run is due", keepers.scheduler_killed, {"rounds": 6}),
        Fault("clock", "scheduler", "clock jumps", "at any time", keepers.scheduler_clock_jumps, {"rounds": 40}),
        Fault("two of it", "two schedulers", "one database", "as a run is due", keepers.two_schedulers, {"rounds": 6}),
        Fault("killed", "supervisor", "killed", working, keepers.supervisor_killed, {"rounds": 3}),
        Fault("database away", "supervisor", "database away", working, keepers.supervisor_database_away),
        Fault("clock", "supervisor", "clock ahead", working, keepers.supervisor_clock_jumps, {"hours": 72.0}),
        Fault("clock", "supervisor", "clock behind", working, keepers.supervisor_clock_jumps, {"hours": -72.0}),
        Fault("two of it", "two supervisors", "one database", working, keepers.two_supervisors, {"rounds": 4}),
    ]


def of_trials() -> list[Fault]:
    return [Fault("killed", "canary", "killed", scene, trials.killed, {"scene": scene}) for scene in trials.SCENES]


def of_runs() -> list[Fault]:
    found = []
    for stage in STAGES:
        told = {"stage": stage}
        found += [
            Fault("killed", "child", "killed", stage, runs.killed, {**told, "rounds": 6}),
            Fault("disk full", "child", "disk full", stage, runs.disk_full, told),
            Fault("database away", "child", "database away", stage, runs.database_away, told),
            Fault("clock", "child", "clock ahead", stage, runs.clock_jumps, {**told, "hours": 72.0}),
            Fault("clock", "child", "clock behind", stage, runs.clock_jumps, {**told, "hours": -72.0}),
            Fault("two of it", "two children", "one attempt", stage, runs.two_of_one_attempt, told),
            Fault("two of it", "two children", "zombie", stage, runs.zombie, told),
        ]
    found += [Fault("Ollama " + how, "Ollama", how, "release", runs.ollama_fails, {"how": how}) for how in runs.OLLAMA]
    for name, (stage, pattern) in ROTTEN.items():
        for how in runs.ROT:
            told = {"stage": stage, "pattern": pattern, "how": how}
            found.append(Fault("rot", name, how, stage, runs.file_rots, told))
    return found


FAULTS: list[Fault] = [*of_chats(), *of_engines(), *of_keepers(), *of_trials(), *of_runs()]

# The short form: of each kind one, seldom; a bot has many of them in one life.
ROUGH = [
    (chats.killed, {"rounds": 1}),
    (chats.killed_as_it_begins, {"rounds": 1}),
    (chats.told_to_end, {"rounds": 1}),
    (chats.database_gone, {}),
    (chats.updates_twice, {}),
    (chats.updates_out_of_order, {}),
    (chats.flood, {"times": 4}),
    (chats.telegram_fails, {"times": 3}),
    *((chats.ollama_fails, {"how": how}) for how in ("gone", "slow", "out of memory", "garbage", "dying mid-stream")),
]
SELDOM: dict[tuple[str, str, str], dict[str, Any]] = {
    ("bot", "disk full", TALKING): {},
    ("engine", "killed", "at work"): {"rounds": 1},
    ("engine's blob", "truncated", "between two lives"): {},
    ("scheduler", "killed", "as a run is due"): {"rounds": 2},
    ("scheduler", "clock jumps", "at any time"): {"rounds": 10},
    ("two schedulers", "one database", "as a run is due"): {"rounds": 2},
    ("supervisor", "killed", "while it has a child"): {"rounds": 1},
    ("canary", "killed", "start by a run"): {"rounds": 2},
    ("canary", "killed", "growth"): {"rounds": 1},
    ("canary", "killed", "promotion on proof"): {"rounds": 2},
    ("canary", "killed", "withdrawal on harm"): {"rounds": 2},
    ("canary", "killed", "rollback"): {"rounds": 2},
    ("child", "killed", "quantise"): {"rounds": 3},
    ("child", "disk full", "release"): {},
    ("child", "database away", "gate"): {},
    ("two children", "zombie", "gate"): {},
    ("Ollama", "out of memory for good", "release"): {},
    ("Ollama", "garbage at chat", "release"): {},
    ("candidate, scored", "flipped", "release"): {},
    ("checkpoint's adapter", "truncated", "train"): {},
}
SHORT = [
    Fault("many", "bot", "all of it", TALKING, chats.play, {"strikes": ROUGH}),
    *(replace(fault, told=fault.told | SELDOM[fault.place]) for fault in FAULTS if fault.place in SELDOM),
]
