"""Tests of the files that a deployment declares."""
