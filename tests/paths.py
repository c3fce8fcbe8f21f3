"""Where the project and its tests lie."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
# Where ZetaSQL is, compiled for this machine.
COMPILED = Path(sys.prefix).resolve() / "wasmtime"
# What emulators of tests make and use again, by the code that made it.
EMULATORS = Path(sys.prefix).resolve() / "emulators"
# The packages that are in the image.
PACKAGES = ("apis", "bigquery", "config", "jobs", "oracle", "runs", "service", "sessions")
