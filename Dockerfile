# The pipeline on a CPU:
#   docker build -t reproducible-logreg .
#   docker run --rm reproducible-logreg
FROM python:3.11-slim-bookworm AS base
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home user
USER user

FROM base
WORKDIR /home/user/reproducible-logreg
COPY --chown=user Makefile requirements.lock ./
RUN make install TORCH=cpu
COPY --chown=user . .
ENV PATH="/home/user/reproducible-logreg/.venv/bin:$PATH"
CMD ["dvc", "repro"]
