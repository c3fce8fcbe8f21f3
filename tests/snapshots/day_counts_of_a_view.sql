SELECT
  IFNULL(FORMAT_TIMESTAMP('%Y%m%d', `timestamp`), '__NULL__') AS partition_id,
  COUNT(*) AS total_rows,
  CAST(((SUM(CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5(ARRAY_TO_STRING(
    [`uuid`, `event`, `distinct_id`, CAST(UNIX_MICROS(`timestamp`) AS STRING),
     CAST(UNIX_MICROS(`bq_ingested_timestamp`) AS STRING)],
    '\x1f',
    '\x1e'
  ))), 1, 15)) AS INT64) >> 30) & 1073741823) << 30) | (SUM(CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5(ARRAY_TO_STRING(
    [`uuid`, `event`, `distinct_id`, CAST(UNIX_MICROS(`timestamp`) AS STRING),
     CAST(UNIX_MICROS(`bq_ingested_timestamp`) AS STRING)],
    '\x1f',
    '\x1e'
  ))), 1, 15)) AS INT64) & 1073741823) & 1073741823) AS INT64) AS stamp
FROM `my-project`.`posthog_etl`.`events`
WHERE `timestamp` IS NULL OR `timestamp` >= TIMESTAMP '0001-01-01 00:00:00+00'
GROUP BY partition_id
