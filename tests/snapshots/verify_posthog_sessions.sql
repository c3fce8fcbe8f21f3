SELECT
  `session_id` AS session_id,
  `channel_type` AS channel_type,
  `end_timestamp` AS end_timestamp
FROM `my-project`.`posthog_etl`.`sessions`
WHERE LOWER(REGEXP_REPLACE(`session_id`, r'[^a-zA-Z0-9]', '')) IN UNNEST(@keys)
