SELECT JSON_QUERY(report, '$.counts') AS counts
FROM etl_runs
WHERE job = 'sessions' AND status = 'succeeded' AND kind = 'incremental' AND run_id < @run_id
ORDER BY run_id DESC
LIMIT 7
