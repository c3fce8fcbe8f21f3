WITH rows_of_days AS (
  SELECT DATE_TRUNC(session_date, WEEK(MONDAY)) AS period
  FROM sessions
  WHERE session_date BETWEEN DATE '2026-09-07' AND DATE '2026-10-11'
)
SELECT period, '' AS split, COUNT(*) AS value, COUNT(*) AS sessions
FROM rows_of_days
GROUP BY period
ORDER BY period
