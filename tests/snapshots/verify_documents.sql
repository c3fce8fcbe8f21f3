WITH document_rows AS (
  SELECT
    `document_id` AS document_id,
    `user_id` AS user_id,
    `createdAt` AS createdAt,
    `type` AS type,
    `etl_loaded_at` AS etl_loaded_at
  FROM `my-project`.`firebase_etl_prod`.`events`
),
spans AS (
  SELECT first_at, last_at
  FROM UNNEST(@firsts) AS first_at WITH OFFSET AS a
  JOIN UNNEST(@lasts) AS last_at WITH OFFSET AS b ON a = b
),
created AS (
  SELECT DISTINCT d.document_id AS document_id
  FROM document_rows AS d
  JOIN spans AS s ON d.createdAt BETWEEN s.first_at AND s.last_at
)
SELECT document_id, user_id, createdAt, type, etl_loaded_at
FROM document_rows
WHERE document_id IN (SELECT document_id FROM created)
