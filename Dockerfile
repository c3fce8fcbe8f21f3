# The image of the service and of the job, which differ in their command alone.
# `make rehearse` performs these steps without a container engine: see tests/image.py.

FROM python:3.13-slim AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements.txt ./
# Wheels alone: nothing is compiled, so no compiler is ever installed.
RUN pip install --require-hashes --only-binary=:all: --prefix=/packages --requirement=requirements.txt

FROM python:3.13-slim
LABEL org.opencontainers.image.title="posthog-etl" \
      org.opencontainers.image.description="PostHog and Firebase tables in BigQuery to one row per user session"
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=packages /packages /usr/local
# What of the repository is copied, .dockerignore says.
COPY . ./
RUN python -m compileall -q .
# A number needs no account in the image, and lets the platform see that it is not root.
USER 10001:10001
EXPOSE 8080
# gunicorn.conf.py says the rest. The job's command is `python main.py`.
CMD ["python", "-m", "gunicorn"]
