"""Tests of what reads APIs: the clients against fake servers over HTTP, and the pure parts."""
