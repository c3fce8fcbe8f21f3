"""What every run has, whatever its job: request, report, lease, ledger, deadline, log. No job."""

from typing import Final

VERSION: Final = "0.1.0"
