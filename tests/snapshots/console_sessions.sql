SELECT
  session_id, started_at, duration_seconds, engaged_seconds, event_count, user_id, distinct_id, lib,
  country, entry_screen, entry_url
FROM sessions
WHERE session_date BETWEEN DATE '2026-09-07' AND DATE '2026-10-11'
  AND (@until IS NULL OR started_at < @until OR (started_at = @until AND session_id > @after))
  AND viewed_event
  AND (user_id = @id OR session_id = @id OR @id IN UNNEST(distinct_ids))
ORDER BY started_at DESC, session_id
LIMIT 50
