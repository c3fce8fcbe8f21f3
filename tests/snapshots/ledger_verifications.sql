SELECT run_id, status, finished_at, error, report
FROM etl_runs
WHERE kind = 'verify'
ORDER BY run_id DESC
LIMIT 8
