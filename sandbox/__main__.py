"""`python -m sandbox`: see `cli`."""

from __future__ import annotations

import sys

from sandbox.cli import main

sys.exit(main(sys.argv[1:]))
