WITH own AS (
  SELECT anonymous_id FROM identities WHERE user_id = @id
),
pairs AS (
  SELECT tied_id AS id, distinct_id AS other_id, distinct_id, tied_id, day FROM ties
  UNION ALL
  SELECT distinct_id, tied_id, distinct_id, tied_id, day FROM ties
),
known AS (
  SELECT id, other_id, distinct_id, tied_id, MIN(day) AS first_day
  FROM pairs
  WHERE id IN (SELECT anonymous_id FROM own)
  GROUP BY id, other_id, distinct_id, tied_id
),
signs AS (
  SELECT i.anonymous_id, i.distinct_id, s.session_id, s.started_at
  FROM sessions AS s, UNNEST(s.identified) AS i
  WHERE session_date BETWEEN DATE '2026-09-07' AND DATE '2026-10-11'
    AND i.anonymous_id IN (SELECT tied_id FROM known)
  QUALIFY ROW_NUMBER() OVER (
    PARTITION BY i.anonymous_id, i.distinct_id ORDER BY s.started_at, s.session_id
  ) = 1
)
SELECT k.id, k.other_id, k.first_day, g.session_id, g.started_at
FROM known AS k
LEFT JOIN signs AS g ON g.anonymous_id = k.tied_id AND g.distinct_id = k.distinct_id
ORDER BY k.first_day, k.id, k.other_id
LIMIT 50
