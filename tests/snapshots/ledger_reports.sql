SELECT
  r.run_id, r.job, IF(r.status = 'running' AND l.run_id IS NULL, 'lost', r.status) AS status,
  r.kind, r.engine, r.started_at, r.finished_at, r.error, r.report
FROM etl_runs AS r
LEFT JOIN etl_lease_sessions AS l ON l.run_id = r.run_id AND l.expires_at > CURRENT_TIMESTAMP()
WHERE @before IS NULL OR r.run_id < @before
ORDER BY r.run_id DESC
LIMIT 30
