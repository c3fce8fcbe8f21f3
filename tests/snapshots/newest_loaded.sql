SELECT MAX(row_at) AS newest_at
FROM (
  SELECT event_at AS row_at
  FROM staging_projected
  WHERE reason IS NULL
  UNION ALL
  SELECT IF(ended_at <= @now, ended_at, started_at) AS row_at
  FROM sessions
  WHERE session_id NOT IN (SELECT session_id FROM staging_touched)
)
WHERE row_at <= @now
