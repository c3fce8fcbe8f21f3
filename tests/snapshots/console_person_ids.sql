SELECT
  used_id AS id, COUNT(*) AS session_count, MAX(started_at) AS last_used_at,
  MAX(IF(ARRAY_LENGTH(distinct_ids) = 1, user_match, NULL)) AS user_match
FROM sessions, UNNEST(distinct_ids) AS used_id
WHERE session_date BETWEEN DATE '2026-09-07' AND DATE '2026-10-11'
  AND (user_id = @id OR user_id IS NULL AND EXISTS (
    SELECT any_id
    FROM UNNEST(distinct_ids) AS any_id
    WHERE any_id = @id
      OR any_id IN (SELECT anonymous_id FROM identities WHERE user_id = @id)
  ))
GROUP BY used_id
ORDER BY last_used_at DESC, id
LIMIT 50
