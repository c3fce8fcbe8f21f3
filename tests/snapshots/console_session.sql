SELECT *
FROM sessions
WHERE session_date = DATE '2026-09-07'
  AND session_id = @session_id
