WITH chosen AS (
  SELECT
    session_id, session_date, user_id, distinct_ids, viewed_event, joined_event, created_event
  FROM sessions
  WHERE session_date BETWEEN DATE '2026-09-07' AND DATE '2026-10-11'
),
tied_sessions AS (
  SELECT
    s.session_id,
    ANY_VALUE(i.user_id HAVING MAX IF(i.user_id IS NOT NULL, use_no, NULL)) AS user_id,
    ANY_VALUE(used_id HAVING MAX IF(used_id IS NOT NULL, use_no, NULL)) AS distinct_id
  FROM chosen AS s, UNNEST(s.distinct_ids) AS used_id WITH OFFSET AS use_no
  LEFT JOIN identities AS i ON i.anonymous_id = used_id
  WHERE s.user_id IS NULL
    AND NOT REGEXP_REPLACE(LOWER(used_id), r'^[\[\](){}<>\x22\x27\x60]+|[\[\](){}<>\x22\x27\x60]+$', '') IN (
      '', '0', 'anonymous', 'distinct_id', 'distinctid', 'email', 'false', 'guest', 'id', 'nan',
      'none', 'not_authenticated', 'null', 'object object', 'true', 'undefined', '#n/a',
      '-infinity', '0.0', '00000000-0000-0000-0000-000000000000',
      '00000000000000000000000000000000', 'infinity', 'invalid date', 'n/a', 'na', 'nat', 'nil',
      'object null', 'object promise', 'object undefined', 'unknown'
    )
  GROUP BY s.session_id
),
owned AS (
  SELECT
    s.session_id, s.session_date, s.user_id, s.viewed_event, s.joined_event, s.created_event,
    COALESCE(s.user_id, t.user_id) AS owner_id,
    COALESCE(s.user_id, t.user_id, t.distinct_id) AS person_id
  FROM chosen AS s
  LEFT JOIN tied_sessions AS t ON t.session_id = s.session_id
),
person_sessions AS (
  SELECT o.*, DATE(p.first_seen_at) = o.session_date AS is_new
  FROM owned AS o
  LEFT JOIN persons AS p
    ON p.person_id = o.person_id AND IFNULL(p.user_id, '') = IFNULL(o.owner_id, '')
),
people AS (
  SELECT
    person_id,
    COUNTIF(viewed_event) > 0 AS viewed_event,
    COUNTIF(joined_event) > 0 AS joined_event,
    COUNTIF(created_event) > 0 AS created_event
  FROM person_sessions
  WHERE person_id IS NOT NULL
  GROUP BY person_id
)
SELECT
  COUNT(*) AS step_0,
  COUNTIF(viewed_event) AS step_1,
  COUNTIF(viewed_event AND joined_event) AS step_2,
  COUNTIF(viewed_event AND joined_event AND created_event) AS step_3
FROM people
