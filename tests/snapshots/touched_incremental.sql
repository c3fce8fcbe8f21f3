WITH found AS (
  SELECT
    session_id, DATE(event_at) AS day, COUNT(*) AS row_count,
    CAST(((SUM(digest >> 30) & 1073741823) << 30) | (SUM(digest & 1073741823) & 1073741823) AS INT64) AS digest
  FROM staging_projected
  WHERE reason IS NULL AND NOT session_id IN (SELECT session_id FROM quarantined_sessions)
  GROUP BY session_id, day
),
stored AS (
  SELECT s.session_id, d.day, d.row_count, d.digest
  FROM sessions AS s, UNNEST(s._days) AS d
  WHERE s.session_date IN (
    DATE '2026-10-01', DATE '2026-10-02', DATE '2026-10-03', DATE '2026-10-04', DATE '2026-10-05',
    DATE '2026-10-06', DATE '2026-10-07', DATE '2026-10-08', DATE '2026-10-09'
  )
    AND d.day IN (DATE '2026-10-04', DATE '2026-10-05', DATE '2026-10-09')
)
SELECT DISTINCT COALESCE(f.session_id, s.session_id) AS session_id
FROM found AS f
FULL JOIN stored AS s ON s.session_id = f.session_id AND s.day = f.day
WHERE f.row_count IS DISTINCT FROM s.row_count OR f.digest IS DISTINCT FROM s.digest
