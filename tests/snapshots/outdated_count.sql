WITH outdated AS (
WITH session_rows AS (
  SELECT session_id, distinct_ids, started_at, ended_at
  FROM sessions
),
session_ids AS (
  SELECT s.session_id, distinct_id, use_no
  FROM session_rows AS s, UNNEST(s.distinct_ids) AS distinct_id WITH OFFSET AS use_no
  WHERE NOT REGEXP_REPLACE(LOWER(distinct_id), r'^[\[\](){}<>\x22\x27\x60]+|[\[\](){}<>\x22\x27\x60]+$', '') IN (
      '', '0', 'anonymous', 'distinct_id', 'distinctid', 'email', 'false', 'guest', 'id', 'nan',
      'none', 'not_authenticated', 'null', 'object object', 'true', 'undefined', '#n/a',
      '-infinity', '0.0', '00000000-0000-0000-0000-000000000000',
      '00000000000000000000000000000000', 'infinity', 'invalid date', 'n/a', 'na', 'nat', 'nil',
      'object null', 'object promise', 'object undefined', 'unknown'
    )
),
ids AS (
  SELECT DISTINCT distinct_id FROM session_ids
),
id_digits AS (
  SELECT
    distinct_id,
    IF(REGEXP_CONTAINS(distinct_id, r'^[0-9-+.()\s\x{2212}\x{ff0b}\p{Pd}\p{Cf}\pZ]+$|^\+?[1-9]\.[0-9]+[eE]\+?(?:0?[6-9]|1[0-4])$'), REGEXP_REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(IF(REGEXP_CONTAINS(distinct_id, r'^\+?[1-9]\.[0-9]+[eE]\+?(?:0?[6-9]|1[0-4])$'), CAST(SAFE_CAST(SAFE_CAST(distinct_id AS FLOAT64) AS INT64) AS STRING), distinct_id), r'^(\+?[0-9]+)[.]0$', r'\1'), r'([0-9][-+.()\s\x{2212}\x{ff0b}\p{Pd}\p{Cf}\pZ]*)[(]0[)]', r'\1'), r'[^0-9]', ''), r'^00', ''), NULL) AS phone_digits
  FROM ids
),
id_keys AS (
  SELECT
    distinct_id,
    IF(REGEXP_CONTAINS(phone_digits, r'^[1-9][0-9]{6,}$'), TO_HEX(SHA256(phone_digits)), NULL) AS phone_key,
    TO_HEX(SHA256(LOWER(distinct_id))) AS email_key
  FROM id_digits
),
id_users AS (
  SELECT
    i.distinct_id,
    COALESCE(u.user_id, p.user_id, e.user_id) AS user_id,
    COALESCE(u.user_match, p.user_match, e.user_match) AS user_match,
    CASE
      WHEN u.user_id IS NOT NULL THEN u.signed_up_at
      WHEN p.user_id IS NOT NULL THEN p.signed_up_at
      ELSE e.signed_up_at
    END AS signed_up_at
  FROM id_keys AS i
  LEFT JOIN staging_user_keys AS u ON u.user_match = 'uid' AND u.key = i.distinct_id
  LEFT JOIN staging_user_keys AS p ON p.user_match = 'phone' AND p.key = i.phone_key
  LEFT JOIN staging_user_keys AS e ON e.user_match = 'email' AND e.key = i.email_key
),
session_users AS (
  SELECT
    s.session_id, m.user_id, m.user_match, m.signed_up_at,
    ROW_NUMBER() OVER (PARTITION BY s.session_id ORDER BY s.use_no DESC) AS choice_no
  FROM session_ids AS s
  JOIN id_users AS m ON m.distinct_id = s.distinct_id
  WHERE m.user_id IS NOT NULL
),
session_documents AS (
  SELECT
    s.session_id,
    COUNT(DISTINCT IF(d.is_checkin, NULL, d.document_id)) AS events_created,
    COUNT(DISTINCT IF(d.is_checkin, d.document_id, NULL)) AS checkins_created
  FROM session_rows AS s
  JOIN session_users AS u ON u.session_id = s.session_id AND u.choice_no = 1
  JOIN staging_documents AS d
    ON d.user_id = u.user_id
    AND TIMESTAMP_DIFF(s.started_at, d.created_at, MICROSECOND) <= 60000000
    AND TIMESTAMP_DIFF(d.created_at, s.ended_at, MICROSECOND) <= 60000000
  WHERE d.document_id IS NOT NULL
  GROUP BY s.session_id
),
enriched AS (
  SELECT
    s.session_id, u.user_id, u.user_match, u.signed_up_at AS user_signed_up_at, c.channel_type,
    IFNULL(d.events_created, 0) AS events_created,
    IFNULL(d.checkins_created, 0) AS checkins_created
  FROM session_rows AS s
  LEFT JOIN session_users AS u ON u.session_id = s.session_id AND u.choice_no = 1
  LEFT JOIN session_documents AS d ON d.session_id = s.session_id
  LEFT JOIN staging_channels AS c ON c.session_id = s.session_id
)
SELECT
  s.session_id, s.session_date, e.user_id, e.user_match, e.user_signed_up_at, e.channel_type,
  e.events_created, e.checkins_created
FROM sessions AS s
JOIN enriched AS e ON e.session_id = s.session_id
WHERE s.user_id IS DISTINCT FROM e.user_id
  OR s.user_match IS DISTINCT FROM e.user_match
  OR s.user_signed_up_at IS DISTINCT FROM e.user_signed_up_at
  OR s.channel_type IS DISTINCT FROM e.channel_type
  OR s.events_created IS DISTINCT FROM e.events_created
  OR s.checkins_created IS DISTINCT FROM e.checkins_created
)
SELECT
  (SELECT COUNT(*) FROM outdated) AS outdated,
  (SELECT COUNT(DISTINCT user_id) FROM staging_user_keys) AS users,
  (SELECT COUNTIF(document_id IS NOT NULL OR is_ignored) FROM staging_documents) AS documents,
  (SELECT COUNTIF(is_ignored) FROM staging_documents) AS ignored_documents,
  (SELECT COUNTIF(is_time_unread) FROM staging_user_keys) AS user_times_unread,
  (
    SELECT COUNTIF(is_time_unread AND NOT is_ignored) FROM staging_documents
  ) AS document_times_unread,
  (
    SELECT COUNTIF(document_id IS NULL AND NOT is_ignored) FROM staging_documents
  ) AS incomplete_documents,
  (
    SELECT COUNT(DISTINCT d.user_id)
    FROM staging_documents AS d
    LEFT JOIN staging_user_keys AS u ON u.user_match = 'uid' AND u.key = d.user_id
    WHERE d.document_id IS NOT NULL AND u.key IS NULL
  ) AS creators_unknown,
  (
    SELECT MAX(row_at) AS newest_at
    FROM (
      SELECT IF(ended_at <= @now, ended_at, started_at) AS row_at
      FROM sessions
    )
    WHERE row_at <= @now
  ) AS newest_at
