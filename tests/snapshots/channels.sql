WITH source_rows AS (
  SELECT
    NULLIF(REGEXP_REPLACE(`session_id`, r'^[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+|[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+$', ''), '') AS session_id,
    `channel_type` AS channel_type,
    `end_timestamp` AS end_at
  FROM `my-project`.`posthog_etl`.`sessions` FOR SYSTEM_TIME AS OF @snapshot_at
),
session_rows AS (
  SELECT
    IF(
      REGEXP_REPLACE(LOWER(session_id), r'^[\[\](){}<>\x22\x27\x60]+|[\[\](){}<>\x22\x27\x60]+$', '') IN (
      '', '0', 'anonymous', 'distinct_id', 'distinctid', 'email', 'false', 'guest', 'id', 'nan',
      'none', 'not_authenticated', 'null', 'object object', 'true', 'undefined', '#n/a',
      '-infinity', '0.0', '00000000-0000-0000-0000-000000000000',
      '00000000000000000000000000000000', 'infinity', 'invalid date', 'n/a', 'na', 'nat', 'nil',
      'object null', 'object promise', 'object undefined', 'unknown'
    ),
      NULL,
      IFNULL(
        REGEXP_EXTRACT(LOWER(session_id), r'^[{(]?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})[)}]?$'),
        session_id
      )
    ) AS session_id,
    channel_type, end_at
  FROM source_rows
),
ranked AS (
  SELECT
    session_id, channel_type,
    ROW_NUMBER() OVER (
      PARTITION BY session_id ORDER BY end_at DESC, channel_type DESC
    ) AS choice_no
  FROM session_rows
  WHERE session_id IS NOT NULL
)
SELECT session_id, channel_type FROM ranked WHERE choice_no = 1
