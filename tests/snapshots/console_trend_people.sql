WITH chosen AS (
  SELECT
    session_id, session_date, user_id, distinct_ids
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
    s.session_id, s.session_date, s.user_id,
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
rows_of_days AS (
  SELECT
    DATE_TRUNC(session_date, WEEK(MONDAY)) AS period,
    CASE WHEN person_id IS NULL THEN 'nobody' WHEN is_new THEN 'new' ELSE 'returning' END AS split, person_id AS value
  FROM person_sessions
),
split_values AS (
  SELECT split AS known, ROW_NUMBER() OVER (ORDER BY COUNT(*) DESC, split) AS place
  FROM rows_of_days
  GROUP BY split
),
placed_rows AS (
  SELECT r.*, IF(v.place <= 6, r.split, 'other') AS shown,
    LEAST(v.place, 7) AS place
  FROM rows_of_days AS r
  JOIN split_values AS v ON v.known = r.split
)
SELECT period, shown AS split, COUNT(DISTINCT value) AS value, COUNT(*) AS sessions
FROM placed_rows
GROUP BY period, shown, place
ORDER BY period, place
