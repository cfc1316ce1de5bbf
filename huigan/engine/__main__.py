"""`python -m huigan.engine`: the engine as a process of its own."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from huigan.engine.server import serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="huigan.engine", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=11434)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--max-loaded", type=int, default=3)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--max-queue", type=int, default=512)
    parser.add_argument("--keep-alive", type=float, default=300.0, metavar="SECONDS")
    parser.add_argument("--threads", type=int, help="default: physical cores")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    serve(
        given.host,
        given.port,
        given.models,
        max_loaded=given.max_loaded,
        parallel=given.parallel,
        max_queue=given.max_queue,
        keep_alive_seconds=given.keep_alive,
        threads=given.threads,
    )


if __name__ == "__main__":
    main()
