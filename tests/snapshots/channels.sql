WITH source_rows AS (
  SELECT
    `session_id` AS session_id,
    `channel_type` AS channel_type,
    `end_timestamp` AS end_at
  FROM `my-project`.`posthog_etl`.`sessions` FOR SYSTEM_TIME AS OF @snapshot_at
),
ranked AS (
  SELECT
    session_id, channel_type,
    ROW_NUMBER() OVER (
      PARTITION BY session_id ORDER BY end_at DESC, channel_type DESC
    ) AS choice_no
  FROM source_rows
  WHERE session_id IS NOT NULL
)
SELECT session_id, channel_type FROM ranked WHERE choice_no = 1
