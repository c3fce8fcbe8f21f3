UPDATE etl_lease_sessions
SET run_id = NULL, expires_at = NULL, triggers = @triggers
WHERE run_id = @run_id AND fence = @fence
