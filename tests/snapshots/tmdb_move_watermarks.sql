BEGIN TRANSACTION;
UPDATE etl_lease_claude_usage
SET
  published_run_id = @run_id,
  triggers = @triggers,
  expires_at = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL @seconds SECOND)
WHERE run_id = @run_id AND fence = @fence AND IFNULL(published_run_id != @run_id, TRUE);
ASSERT @@row_count = 1 AS 'the lease was lost';
DELETE FROM etl_state_tmdb_changes
WHERE kind IN UNNEST(@kinds) AND watermark < @watermark;
INSERT INTO etl_state_tmdb_changes (kind, watermark, run_id)
SELECT kind, @watermark, @run_id
FROM UNNEST(@kinds) AS kind
WHERE kind NOT IN (SELECT kind FROM etl_state_tmdb_changes);
COMMIT TRANSACTION;
