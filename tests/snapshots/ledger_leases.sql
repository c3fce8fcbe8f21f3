(SELECT CAST(NULL AS STRING) AS run_id, CAST(NULL AS TIMESTAMP) AS expires_at
  UNION ALL SELECT run_id, expires_at FROM etl_lease_sessions
  UNION ALL SELECT run_id, expires_at FROM etl_lease_other)
