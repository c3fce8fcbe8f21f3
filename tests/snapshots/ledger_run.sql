SELECT IF(r.status = 'running' AND l.run_id IS NULL, 'lost', r.status) AS status, r.report
FROM etl_runs AS r
LEFT JOIN etl_lease_sessions AS l ON l.run_id = r.run_id AND l.expires_at > CURRENT_TIMESTAMP()
WHERE r.run_id = @run_id
