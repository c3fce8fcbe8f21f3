SELECT
  partition_id,
  SUM(total_rows) AS total_rows,
  MAX(UNIX_MICROS(last_modified_time)) AS stamp
FROM `my-project`.`posthog_etl`.INFORMATION_SCHEMA.PARTITIONS
WHERE table_name = 'events'
GROUP BY partition_id
