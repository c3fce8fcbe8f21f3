SELECT
  COUNT(*) AS row_count,
  COUNT(*) - COUNT(DISTINCT id) AS repeated_keys
FROM dog_breeds
