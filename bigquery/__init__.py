"""How BigQuery is spoken to: clients, credentials, jobs, retries, errors by class. No table."""
