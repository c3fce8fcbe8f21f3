WITH rows_of_days AS (
  SELECT
    DATE_TRUNC(session_date, WEEK(MONDAY)) AS period,
    IFNULL(CAST(country AS STRING), '(none)') AS split, engaged_seconds AS value
  FROM sessions
  WHERE session_date BETWEEN DATE '2026-09-07' AND DATE '2026-10-11'
),
split_values AS (
  SELECT split AS known, ROW_NUMBER() OVER (ORDER BY COUNT(*) DESC, split) AS place
  FROM rows_of_days
  GROUP BY split
),
placed_rows AS (
  SELECT r.*, IF(v.place <= 6, r.split, 'other') AS shown,
    LEAST(v.place, 7) AS place
  FROM rows_of_days AS r
  JOIN split_values AS v ON v.known = r.split
)
SELECT period, shown AS split, APPROX_QUANTILES(value, 2)[SAFE_OFFSET(1)] AS value, COUNT(*) AS sessions
FROM placed_rows
GROUP BY period, shown, place
ORDER BY period, place
