"""Tests of bigquery/."""
