WITH source_rows AS (
  SELECT
    NULLIF(REGEXP_REPLACE(`user_id`, r'^[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+|[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+$', ''), '') AS user_id,
    IFNULL(NULLIF(REGEXP_REPLACE(`phoneNumber`, r'^[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+|[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+$', ''), ''), '') AS phone,
    IFNULL(NULLIF(REGEXP_REPLACE(`email`, r'^[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+|[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+$', ''), ''), '') AS email,
    `createdAt` AS created_at,
    `createdAt` IS NOT NULL AS has_created_at,
    `etl_loaded_at` AS loaded_at
  FROM `my-project`.`firebase_etl_prod`.`users` FOR SYSTEM_TIME AS OF @snapshot_at
),
timed_rows AS (
  SELECT
    user_id, phone, email, loaded_at,
    IF(created_at >= TIMESTAMP '1971-01-01 00:00:00+00', created_at, NULL) AS created_at,
    has_created_at AND created_at IS NULL AS is_time_unread
  FROM source_rows
),
copies AS (
  SELECT
    user_id, created_at AS signed_up_at, is_time_unread,
    REGEXP_REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(IF(REGEXP_CONTAINS(phone, r'^\+?[1-9]\.[0-9]+[eE]\+?(?:0?[6-9]|1[0-4])$'), CAST(SAFE_CAST(SAFE_CAST(phone AS FLOAT64) AS INT64) AS STRING), phone), r'^(\+?[0-9]+)[.]0$', r'\1'), r'([0-9][-+.()\s\x{2212}\x{ff0b}\p{Pd}\p{Cf}\pZ]*)[(]0[)]', r'\1'), r'[^0-9]', ''), r'^00', '') AS phone_digits,
    TO_HEX(SHA256(LOWER(NULLIF(email, '')))) AS email_key,
    ROW_NUMBER() OVER (
      PARTITION BY user_id
      ORDER BY loaded_at DESC, created_at DESC, TO_HEX(MD5(CONCAT(
        user_id, '|', phone, '|', email, '|', IFNULL(CAST(UNIX_MICROS(created_at) AS STRING), '')
      ))) DESC
    ) AS copy_no
  FROM timed_rows
  WHERE user_id IS NOT NULL
),
users AS (
  SELECT
    user_id, signed_up_at, is_time_unread, email_key,
    IF(REGEXP_CONTAINS(phone_digits, r'^[1-9][0-9]{6,}$'), TO_HEX(SHA256(phone_digits)), NULL) AS phone_key
  FROM copies
  WHERE copy_no = 1
),
user_keys AS (
  SELECT 'uid' AS user_match, user_id AS key, user_id, signed_up_at, is_time_unread
  FROM users
  UNION ALL
  SELECT 'phone', phone_key, user_id, signed_up_at, FALSE FROM users WHERE phone_key IS NOT NULL
  UNION ALL
  SELECT 'email', email_key, user_id, signed_up_at, FALSE FROM users WHERE email_key IS NOT NULL
),
ranked AS (
  SELECT
    user_match, key, user_id, signed_up_at, is_time_unread,
    ROW_NUMBER() OVER (
      PARTITION BY user_match, key ORDER BY signed_up_at DESC, user_id DESC
    ) AS choice_no
  FROM user_keys
)
SELECT user_match, key, user_id, signed_up_at, is_time_unread FROM ranked WHERE choice_no = 1
