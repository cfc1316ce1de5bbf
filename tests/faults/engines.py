"""Faults that strike the engine, with a random two-layer Llama in it: it is killed at any instant of a create, a load
or an answer, its blobs rot, two of it share a folder. A tag is there whole or not at all, and says the same as before.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huigan.serving import library
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError
from tests.fakes.ollama import CHATML
from tests.faults.forks import soon
from tests.faults.matrix import Came, Cell

OPTIONS = {"temperature": 0.0, "num_predict": 24, "num_ctx": 256, "seed": 1}
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
SETTLED_SECONDS = 60.0


class Engine:
    def __init__(self, models: Path, log: Path) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            self.port = listening.getsockname()[1]
        self.models, self.log = models, log
        self.client = Ollama(f"127.0.0.1:{self.port}")

    def start(self) -> None:
        where = ["--port", str(self.port), "--models", str(self.models)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "huigan.engine", *where], stdout=log, stderr=log)
        assert soon(self.answers, SETTLED_SECONDS), self.log.read_text()[-2000:]

    def answers(self) -> bool:
        try:
            library.version(self.client)
        except ServingError:
            return False
        return True

    def kill(self) -> bool:
        self.process.kill()
        return self.process.wait() == -9

    def says(self, tag: str) -> str:
        return str(library.ask(self.client, tag, QUESTION, OPTIONS).message.content)

    def create(self, tag: str, gguf: Path) -> None:
        parameters = {"num_ctx": 256, "stop": ["<|im_end|>"]}
        library.create(self.client, tag, gguf, template=CHATML, system="", parameters=parameters)


@contextmanager
def engine(cell: Cell, name: str = "one") -> Iterator[Engine]:
    cell.folder.mkdir(exist_ok=True)
    made = Engine(cell.folder / "models", cell.folder / f"{name}.log")
    made.start()
    try:
        yield made
    finally:
        made.kill()


def gguf(cell: Cell) -> Path:
    return cell.grounds.tiny / "base.gguf"


def killed(cell: Cell, rounds: int) -> Came:
    """While a tag is created, loaded and asked, each time by somebody who goes on where it breaks off."""
    with engine(cell) as one:
        one.create("huigan:kept", gguf(cell))
        said, kills, broken = one.says("huigan:kept"), 0, list[str]()
        for number in range(rounds):
            tag = f"huigan:new-{number}"
            asking = threading.Thread(target=use, args=(one, tag, gguf(cell)))
            asking.start()
            time.sleep(cell.rng.uniform(0, 1.2))
            kills += one.kill()
            asking.join()
            one.start()
            broken += whole(one, said)
            one.create(tag, gguf(cell))
            broken += [] if one.says(tag) == said else [f"{tag} says something else"]
        return Came("as before", broken, kills, rounds)


def use(one: Engine, tag: str, path: Path) -> None:
    """Until the engine is gone."""
    try:
        one.create(tag, path)
        library.warm(one.client, tag)
        while True:
            one.says(tag)
    except ServingError:
        return


def whole(one: Engine, said: str) -> list[str]:
    """Every tag that is listed can be asked, and says what the same file always said."""
    broken = [] if "huigan:kept" in library.tags(one.client) else ["a tag that was there is gone"]
    return broken + [f"{tag} is not whole" for tag in library.tags(one.client) if one.says(tag) != said]


def blob_rots(cell: Cell, how: str) -> Came:
    """Of one tag. It is refused in words, the engine lives, and the tag beside it answers as ever."""
    from tests.faults.runs import ROT

    other = cell.folder / "other.gguf"
    with engine(cell) as one:
        one.create("huigan:kept", gguf(cell))
        said = one.says("huigan:kept")
        other.write_bytes(gguf(cell).read_bytes() + bytes(32))
        one.create("huigan:rotten", other)
        one.kill()
        blobs = [path for path in (cell.folder / "models" / "blobs").iterdir() if path.stat().st_size > 100_000]
        rotten = max(blobs, key=lambda path: path.stat().st_size)
        ROT[how](rotten, cell.rng)
        one.start()
        try:
            one.says("huigan:rotten")
            came = "answered all the same"
        except ServingError as error:
            came = f"refused: {error.code}"
        broken = [] if one.process.poll() is None else ["the engine ended"]
        return Came(came, broken + ([] if one.says("huigan:kept") == said else ["the other tag says something else"]))


def two_engines(cell: Cell) -> Came:
    """On one folder of models: what one has created the other has, also where both create it at once."""
    with engine(cell) as one, engine(cell, "two") as two:
        one.create("huigan:kept", gguf(cell))
        said, broken = one.says("huigan:kept"), list[str]()
        both = [threading.Thread(target=each.create, args=("huigan:both", gguf(cell))) for each in (one, two)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        for each in (one, two):
            broken += whole(each, said)
            broken += [] if "huigan:both" in library.tags(each.client) else ["what both created is not there"]
        kills = int(one.kill())
        return Came("as before", broken + whole(two, said), kills)
