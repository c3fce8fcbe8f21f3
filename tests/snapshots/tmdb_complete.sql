BEGIN TRANSACTION;
UPDATE etl_lease_claude_usage
SET
  published_run_id = @run_id,
  triggers = @triggers,
  expires_at = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL @seconds SECOND)
WHERE run_id = @run_id AND fence = @fence AND IFNULL(published_run_id != @run_id, TRUE);
ASSERT @@row_count = 1 AS 'the lease was lost';
COMMIT TRANSACTION;
