SELECT
  (SELECT MAX(row_count) FROM quarantined_sessions WHERE session_id = @session_id) AS kept_out,
  COUNT(*) AS pieces, MIN(session_id) AS piece
FROM sessions
WHERE STARTS_WITH(session_id, CONCAT(@session_id, '/'))
