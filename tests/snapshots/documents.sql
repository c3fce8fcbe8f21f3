WITH source_rows AS (
  SELECT
    NULLIF(REGEXP_REPLACE(`document_id`, r'^[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+|[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+$', ''), '') AS document_id,
    `user_id` AS creator,
    `createdAt` AS created_at,
    `createdAt` IS NOT NULL AS has_created_at,
    `type` AS type,
    `etl_loaded_at` AS loaded_at
  FROM `my-project`.`firebase_etl_prod`.`events` FOR SYSTEM_TIME AS OF @snapshot_at
),
timed_rows AS (
  SELECT
    document_id, creator, type, loaded_at,
    IF(created_at >= TIMESTAMP '1971-01-01 00:00:00+00', created_at, NULL) AS created_at,
    has_created_at AND created_at IS NULL AS is_time_unread
  FROM source_rows
),
copies AS (
  SELECT
    document_id, created_at, is_time_unread,
    IFNULL(type = 'checkin', FALSE) AS is_checkin,
    FALSE AS is_ignored,
    NULLIF(REGEXP_REPLACE(COALESCE(
        REGEXP_EXTRACT(REPLACE(creator, r'\/', '/'), r'^\s*/*(?:.*/documents/)?users/([^/"]*)/*\s*$'),
        REGEXP_EXTRACT(REPLACE(creator, r'\/', '/'), r'^\s*\{.*"\s*:\s*"/*(?:[^"]*/documents/)?users/([^/"]+)/*"'),
        REGEXP_EXTRACT(REPLACE(creator, r'\/', '/'), r'^\s*\{.*"segments"\s*:\s*\[[^\]]*"users"\s*,\s*"([^"]+)"\s*\]'),
        creator
      ), r'^[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+|[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+$', ''), '') AS user_id,
    ROW_NUMBER() OVER (
      PARTITION BY document_id
      ORDER BY loaded_at DESC, created_at DESC, TO_HEX(MD5(CONCAT(
        IFNULL(document_id, ''), '|', IFNULL(creator, ''), '|',
        IFNULL(CAST(UNIX_MICROS(created_at) AS STRING), ''), '|', IFNULL(type, '')
      ))) DESC
    ) AS copy_no
  FROM timed_rows
)
SELECT
  IF(user_id IS NULL OR created_at IS NULL OR is_ignored, NULL, document_id) AS document_id,
  user_id, created_at, is_checkin, is_ignored, is_time_unread
FROM copies
WHERE copy_no = 1 OR document_id IS NULL
