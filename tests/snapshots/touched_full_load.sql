WITH found AS (
  SELECT
    session_id, DATE(event_at) AS day, COUNT(*) AS row_count,
    CAST(((SUM(digest >> 30) & 1073741823) << 30) | (SUM(digest & 1073741823) & 1073741823) AS INT64) AS digest
  FROM staging_projected
  WHERE reason IS NULL
  GROUP BY session_id, day
)
SELECT DISTINCT session_id FROM found
