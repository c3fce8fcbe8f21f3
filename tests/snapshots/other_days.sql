SELECT
  ARRAY_AGG(DISTINCT d.day) AS days,
  ARRAY_AGG(DISTINCT s.session_date) AS session_dates,
  (SELECT COUNT(*) FROM staging_split) AS split
FROM staging_touched AS t
JOIN sessions AS s ON s.session_id = t.session_id, UNNEST(s._days) AS d
