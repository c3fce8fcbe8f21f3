"""Where the project and its tests lie."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
# The packages that are in the image.
PACKAGES = ("apis", "bigquery", "config", "jobs", "oracle", "runs", "service", "sessions")
