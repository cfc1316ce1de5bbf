# Two images from one file: `bot` for the bot and the schedules (no torch, about 200 MB of packages), `trainer` with it.
#
#   docker build --target bot     --tag huigan-bot .
#   docker build --target trainer --tag huigan-trainer .          # CUDA build of torch
#   docker build --target trainer --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu .
#
# PIP_INDEX_URL takes packages from a mirror.

FROM python:3.11-slim AS base
ARG PIP_INDEX_URL
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HUIGAN_HOME=/data OMP_WAIT_POLICY=PASSIVE HF_HUB_DISABLE_TELEMETRY=1
RUN useradd --uid 10001 --create-home huigan && install -d -o huigan -g huigan /data
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY bot bot
COPY trainer trainer
COPY storage storage
COPY schedules schedules
COPY huigan huigan
COPY recipes recipes

FROM base AS bot
RUN pip install --constraint constraints.txt .
USER huigan
WORKDIR /data
ENTRYPOINT ["huigan"]
CMD ["bot"]

FROM base AS trainer
ARG TORCH_INDEX_URL
# llama.cpp's wheel needs libgomp1.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN pip install ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} "$(grep '^torch==' constraints.txt)" \
    && pip install --constraint constraints.txt '.[train,engine]'
USER huigan
WORKDIR /data
ENTRYPOINT ["huigan"]
CMD ["trainer"]
