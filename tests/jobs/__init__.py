"""Tests of the jobs that read APIs, from a request to what readers see."""
