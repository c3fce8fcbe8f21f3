BEGIN TRANSACTION;
UPDATE etl_lease_sessions
SET published_run_id = @run_id, triggers = @triggers
WHERE run_id = @run_id AND fence = @fence AND IFNULL(published_run_id != @run_id, TRUE);
ASSERT @@row_count = 1 AS 'the lease was lost';
DELETE FROM greetings
WHERE TRUE;
COMMIT TRANSACTION;
