WITH session_days AS (
  SELECT
    session_id, DATE(event_at) AS day,
    MIN(event_at) AS first_at, MAX(event_at) AS last_at, COUNT(*) AS row_count,
    CAST(((SUM(digest >> 30) & 1073741823) << 30) | (SUM(digest & 1073741823) & 1073741823) AS INT64) AS digest, LOGICAL_OR(is_split) AS is_split
  FROM staging_projected
  WHERE reason IS NULL AND session_id IN (SELECT session_id FROM staging_touched)
  GROUP BY session_id, day
),
spans AS (
  SELECT
    session_id, MIN(first_at) AS first_at, MAX(last_at) AS last_at, SUM(row_count) AS row_count,
    LOGICAL_OR(is_split) AS is_split,
    ARRAY_AGG(
      STRUCT(day AS day, row_count AS row_count, digest AS digest) ORDER BY day
    ) AS _days
  FROM session_days
  GROUP BY session_id
),
in_batches AS (
  SELECT
    session_id, is_split, first_at, last_at, row_count, _days,
    MOD(CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5(session_id)), 1, 8)) AS INT64), 8) AS batch
  FROM spans
)
SELECT
  session_id, is_split, batch,
  ROW_NUMBER() OVER (PARTITION BY batch ORDER BY session_id) - 1 AS session_no,
  _days, first_at, last_at, row_count,
  row_count > 100000 AS is_quarantined
FROM in_batches
