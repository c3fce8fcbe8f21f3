"""Tests of oracle/."""
