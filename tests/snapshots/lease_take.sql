UPDATE etl_lease_sessions
SET
  fence = fence + 1,
  run_id = @run_id,
  expires_at = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL @seconds SECOND)
WHERE run_id IS NULL OR expires_at < CURRENT_TIMESTAMP()
