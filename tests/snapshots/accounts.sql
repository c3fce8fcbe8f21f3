WITH accounts AS (
  SELECT
    DATE(event_at) AS day,
    CASE
      WHEN reason IS NOT NULL THEN reason
      WHEN session_id IN (SELECT session_id FROM staging_touched) THEN 'touched'
      WHEN session_id IN (SELECT session_id FROM quarantined_sessions) THEN 'quarantined'
      ELSE 'unchanged'
    END AS account
  FROM staging_projected
)
SELECT day, account, COUNT(*) AS row_count
FROM accounts
GROUP BY day, account
