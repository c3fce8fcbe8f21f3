SELECT
  COUNT(*) AS sessions,
  COUNT(session_id) AS keys,
  COUNT(DISTINCT session_id) AS distinct_keys,
  COUNTIF(session_id IS NULL OR session_date IS NULL) AS null_keys,
  COUNTIF(ended_at < started_at) AS backwards
FROM sessions
