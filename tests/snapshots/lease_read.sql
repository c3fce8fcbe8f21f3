SELECT fence, run_id, expires_at, published_run_id, triggers
FROM etl_lease_sessions
