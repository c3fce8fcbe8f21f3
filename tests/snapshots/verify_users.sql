WITH user_rows AS (
  SELECT
    `user_id` AS user_id,
    `phoneNumber` AS phoneNumber,
    `email` AS email,
    `createdAt` AS createdAt,
    `etl_loaded_at` AS etl_loaded_at,
    LOWER(REGEXP_REPLACE(`user_id`, r'[^a-zA-Z0-9]', '')) AS id_key,
    LOWER(REGEXP_REPLACE(`email`, r'[^a-zA-Z0-9]', '')) AS email_key,
    SUBSTR(REGEXP_REPLACE(`phoneNumber`, r'[^0-9]', ''), GREATEST(1, LENGTH(REGEXP_REPLACE(`phoneNumber`, r'[^0-9]', '')) - 5)) AS tail,
    SUBSTR(CAST(SAFE_CAST(SAFE_CAST(`phoneNumber` AS FLOAT64) AS INT64) AS STRING), GREATEST(1, LENGTH(CAST(SAFE_CAST(SAFE_CAST(`phoneNumber` AS FLOAT64) AS INT64) AS STRING)) - 5)) AS number_tail
  FROM `my-project`.`firebase_etl_prod`.`users`
)
SELECT user_id, phoneNumber, email, createdAt, etl_loaded_at
FROM user_rows
WHERE id_key IN (
  SELECT id_key
  FROM user_rows
  WHERE id_key IN UNNEST(@keys) OR email_key IN UNNEST(@keys)
    OR tail IN UNNEST(@tails) OR number_tail IN UNNEST(@tails)
)
