SELECT
  COUNT(*) AS step_0,
  COUNTIF(viewed_event) AS step_1,
  COUNTIF(viewed_event AND joined_event) AS step_2,
  COUNTIF(viewed_event AND joined_event AND created_event) AS step_3
FROM sessions
WHERE session_date BETWEEN DATE '2026-09-07' AND DATE '2026-10-11'
