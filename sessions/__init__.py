"""What a session is: its metrics, its columns, and how raw rows become sessions. Pure."""
