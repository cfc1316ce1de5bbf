"""The trainer: a torch-free supervisor claims runs and starts a child for each, which trains, merges, scores, gates."""

from __future__ import annotations

import os

# A child's exit code: the run is as it was, and another attempt may succeed where this one could not go on.
HANDED_BACK = os.EX_TEMPFAIL

# A child's environment must say these before it starts: the libraries read them when they are loaded.
CHILD_ENVIRONMENT = {
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # else CUDA counts cards in another order than the driver does
    "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads beside any busy process: no progress at all
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
}
