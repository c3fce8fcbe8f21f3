SELECT
  session_id, MIN(event_at) AS first_at, MAX(event_at) AS last_at, COUNT(*) AS row_count
FROM staging_projected
WHERE reason IS NULL AND NOT is_split AND session_id IN (SELECT session_id FROM staging_touched)
GROUP BY session_id
HAVING TIMESTAMP_DIFF(MAX(event_at), MIN(event_at), MICROSECOND) > 259200000000
  OR COUNT(*) > 100000
