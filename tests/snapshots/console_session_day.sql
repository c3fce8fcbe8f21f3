SELECT session_date
FROM sessions
WHERE session_id = @session_id
