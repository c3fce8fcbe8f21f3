"""The tests: real parts, fixed clocks, one sentence of the specification each."""
