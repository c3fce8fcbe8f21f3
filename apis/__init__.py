"""The APIs that jobs read, and the Redis that one of them writes: clients, records, tables."""
