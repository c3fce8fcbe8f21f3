WITH starts AS (
  SELECT session_id, MIN(event_at) AS started_at
  FROM staging_projected
  WHERE reason IS NULL AND session_id NOT IN (SELECT session_id FROM quarantined_sessions)
  GROUP BY session_id
)
SELECT COUNTIF(DATE(started_at) > @oldest_day) AS found FROM starts
