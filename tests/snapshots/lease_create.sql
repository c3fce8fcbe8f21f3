CREATE TABLE IF NOT EXISTS etl_lease_sessions AS
SELECT
  'sessions' AS job, 0 AS fence,
  CAST(NULL AS STRING) AS run_id, CAST(NULL AS TIMESTAMP) AS expires_at,
  CAST(NULL AS STRING) AS published_run_id,
  ARRAY<STRUCT<trigger STRING, run_id STRING>>[] AS triggers
