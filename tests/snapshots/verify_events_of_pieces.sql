SELECT uuid, event, distinct_id, timestamp, bq_ingested_timestamp, properties
FROM (
  SELECT
    `uuid` AS uuid,
    `event` AS event,
    `distinct_id` AS distinct_id,
    `timestamp` AS timestamp,
    `bq_ingested_timestamp` AS bq_ingested_timestamp,
    `properties` AS properties
  FROM `my-project`.`posthog_etl`.`events`
  WHERE ((`timestamp` >= TIMESTAMP '2026-10-04 00:00:00+00' AND `timestamp` < TIMESTAMP '2026-10-05 00:00:00+00'))
)
WHERE EXISTS (
  SELECT 1
  FROM UNNEST(REGEXP_EXTRACT_ALL(properties, r'\"(?:\$session_id|session_id|sessionId)\"\s*:\s*(\"(?:[^\"\\]|\\.)*\"|[^\",}\s]*)')) AS found
  WHERE LOWER(REGEXP_REPLACE(found, r'\\u[0-9a-fA-F]{4}|\\.|[^a-zA-Z0-9]', '')) IN UNNEST(@keys)
)
AND IFNULL(LOWER(REGEXP_REPLACE(distinct_id, r'[^a-zA-Z0-9]', '')), '') IN UNNEST(@distinct_keys)
