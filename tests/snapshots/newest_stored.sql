SELECT MAX(row_at) AS newest_at
FROM (
  SELECT IF(ended_at <= @now, ended_at, started_at) AS row_at
  FROM sessions
)
WHERE row_at <= @now
