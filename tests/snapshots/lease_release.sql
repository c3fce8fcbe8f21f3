UPDATE etl_lease_sessions
SET run_id = NULL, expires_at = NULL
WHERE run_id = @run_id AND fence = @fence
