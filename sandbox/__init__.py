"""A BigQuery emulator and sample data on this machine. Development only: never in the image."""
