WITH found AS (
  SELECT session_id, DATE(event_at) AS day, COUNT(*) AS row_count
  FROM staging_projected
  WHERE reason IS NULL
  GROUP BY session_id, day
)
SELECT DISTINCT session_id FROM found
