"""The metric table that ships: the columns of every project, and those of config/metrics.yaml."""

from __future__ import annotations

from config.metrics_file import metric_table

METRIC_TABLE = metric_table()
