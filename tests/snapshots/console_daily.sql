SELECT
  session_date AS day,
  COUNT(*) AS sessions,
  AVG(engaged_seconds) AS engaged_seconds,
  COUNTIF(created_event) / NULLIF(COUNT(created_event), 0) AS created_event,
  COUNTIF(joined_event) / NULLIF(COUNT(joined_event), 0) AS joined_event,
  COUNTIF(completed_quiz) / NULLIF(COUNT(completed_quiz), 0) AS completed_quiz,
  COUNTIF(is_bounce) / NULLIF(COUNT(is_bounce), 0) AS is_bounce
FROM sessions
WHERE session_date BETWEEN DATE '2026-09-07' AND DATE '2026-10-11'
GROUP BY day
ORDER BY day
