"""The metric table by the product's own engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from process_sessions import process_sessions
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    import pyarrow as pa


def aggregate(events: pa.Table) -> pd.DataFrame:
    """One row per session, in the order of `session_no`."""
    return process_sessions(events.to_pandas(types_mapper=pd.ArrowDtype), METRIC_TABLE)
