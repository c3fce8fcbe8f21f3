SELECT
  IFNULL(FORMAT_TIMESTAMP('%Y%m%d', `timestamp`), '__NULL__') AS partition_id,
  COUNT(*) AS total_rows
FROM `my-project`.`posthog_etl`.`events`
WHERE `timestamp` IS NULL OR `timestamp` >= TIMESTAMP '0001-01-01 00:00:00+00'
GROUP BY partition_id
