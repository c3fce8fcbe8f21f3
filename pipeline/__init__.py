"""How a run works: settings, errors, requests, reports and rules. Pure: no client, no clock."""

from typing import Final

VERSION: Final = "0.1.0"
