# Two images from one file: `bot` for the bot and the schedules (no torch, 125 MB of packages), `trainer` with it (1.9 GB
# with the CPU build of torch).
#
#   docker build --target bot     --tag huigan-bot .
#   docker build --target trainer --tag huigan-trainer .          # CUDA build of torch
#   docker build --target trainer --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu .
#
# PIP_INDEX_URL takes packages from a mirror. What an image depends on is installed before Huigan, so that a change to
# Huigan installs nothing else again. .dockerignore says what is sent here.

FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    HUIGAN_HOME=/data OMP_WAIT_POLICY=PASSIVE HF_HUB_DISABLE_TELEMETRY=1
# At home in /data, because libraries keep caches at home, and nothing else can be written to (see docker-compose.yml).
RUN useradd --uid 10001 --home-dir /data --no-create-home huigan && install -d -o huigan -g huigan /data /backups
WORKDIR /app

FROM base AS requirements
COPY pyproject.toml ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    extras = project['optional-dependencies']; \
    print(*project['dependencies'], sep='\n', file=open('bot.txt', 'w')); \
    print(*extras['train'], *extras['engine'], *extras['china'], sep='\n', file=open('trainer.txt', 'w'))"

FROM base AS wheel
ARG PIP_INDEX_URL
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheel .

FROM base AS packages
ARG PIP_INDEX_URL
COPY constraints.txt ./
COPY --from=requirements /app/bot.txt ./
RUN pip install --constraint constraints.txt --requirement bot.txt
# pg_dump and psql, for backups.
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql-client && rm -rf /var/lib/apt/lists/*

FROM packages AS bot
COPY --from=wheel /wheel /wheel
RUN pip install --no-deps /wheel/*.whl
USER huigan
WORKDIR /data
ENTRYPOINT ["huigan"]
CMD ["bot"]

FROM packages AS trainer
ARG PIP_INDEX_URL TORCH_INDEX_URL
# llama.cpp's wheel needs libgomp1.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN pip install ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} --constraint constraints.txt torch
COPY --from=requirements /app/trainer.txt ./
RUN pip install --constraint constraints.txt --requirement trainer.txt
COPY --from=wheel /wheel /wheel
RUN pip install --no-deps /wheel/*.whl
USER huigan
WORKDIR /data
ENTRYPOINT ["huigan"]
CMD ["trainer"]
