SELECT
  session_id, started_at, duration_seconds, engaged_seconds, event_count, user_id, distinct_id, lib,
  country, entry_screen, entry_url
FROM sessions
WHERE session_date BETWEEN DATE '2026-09-07' AND DATE '2026-10-11'
  AND (user_id = @id OR user_id IS NULL AND EXISTS (
    SELECT any_id
    FROM UNNEST(distinct_ids) AS any_id
    WHERE any_id = @id
      OR any_id IN (SELECT anonymous_id FROM identities WHERE user_id = @id)
  ))
ORDER BY started_at DESC, session_id
LIMIT 50
