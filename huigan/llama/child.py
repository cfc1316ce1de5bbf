"""The process that holds one GGUF: llama.cpp's own HTTP server on a free loopback port.

Started by `runner.py` as a script, never imported: its first line of input says what to load, its one line of output
says where it listens. It ends when its input does, so it cannot outlive its parent, however the parent ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

_LOG_SECONDS = 0.3  # llama.cpp writes its log from a thread of its own, which may be behind


def main() -> None:
    wanted = json.loads(sys.stdin.buffer.readline())
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # llama.cpp prints to stdout; the report must stay clean
    try:
        server = _serve(wanted)
    except RuntimeError as error:
        time.sleep(_LOG_SECONDS)
        sys.exit(f"error: {error}")
    print(json.dumps({"address": server.listening_address}), file=report, flush=True)
    sys.stdin.buffer.read()
    os._exit(0)  # llama.cpp's threads have nothing to save


def _serve(wanted: dict[str, Any]) -> Any:
    from xllamacpp import CommonParams, Server  # OMP_WAIT_POLICY is read while this loads

    params = CommonParams()
    params.model.path = wanted["gguf"]
    params.n_ctx = wanted["context_tokens"] * wanted["parallel"]
    params.n_parallel = wanted["parallel"]
    params.n_batch = wanted["batch_tokens"]
    params.n_ubatch = wanted["batch_tokens"]
    params.cpuparams.n_threads = wanted["threads"]
    params.cpuparams_batch.n_threads = wanted["threads"]
    params.ctx_shift = wanted["shift"]
    params.api_keys = [wanted["key"]]
    params.cache_ram_mib = 0  # slots keep their own prompts; a second cache of up to 8 GiB would never be given back
    params.fit_params = False  # a context smaller than asked would drop messages unseen
    params.endpoint_slots = True
    params.ui = False
    params.verbosity = 1  # errors only: a log must not hold what people say
    return Server(params)


if __name__ == "__main__":
    main()
