SELECT
  COUNT(*) AS row_count,
  COUNT(*) - COUNT(DISTINCT id) AS repeated_keys,
  COUNTIF(name IS NULL OR TRIM(name) = '') AS nameless,
  (SELECT COUNT(*) FROM dog_breeds) AS stored
FROM staging_dog_breeds
