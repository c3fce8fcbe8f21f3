SELECT
  i.anonymous_id, i.distinct_id, s.session_id, s.started_at
FROM sessions AS s, UNNEST(s.identified) AS i
WHERE session_date BETWEEN DATE '2026-09-07' AND DATE '2026-10-11'
  AND i.anonymous_id IN (SELECT anonymous_id FROM identities WHERE user_id = @id)
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY i.anonymous_id ORDER BY s.started_at, s.session_id, i.distinct_id
) = 1
ORDER BY s.started_at, i.anonymous_id
