SELECT
  job, run_id, kind, finished_at,
  SAFE_CAST(JSON_VALUE(report, '$.newest_event_at') AS TIMESTAMP) AS newest_event_at
FROM etl_runs
WHERE status = 'succeeded'
  AND IFNULL(kind, '') NOT IN ('dates', 'limit', 'verify')
  AND JSON_VALUE(report, '$.dry_run') = 'false'
QUALIFY ROW_NUMBER() OVER (PARTITION BY job ORDER BY started_at > TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL 1 HOUR), run_id DESC) = 1
