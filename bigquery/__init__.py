"""How we talk to BigQuery: clients, credentials, jobs, retries, errors. Knows no table."""
