"""Stand-ins on loopback for what jobs talk to besides BigQuery: three APIs, and a Redis."""
