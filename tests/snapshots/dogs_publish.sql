BEGIN TRANSACTION;
UPDATE etl_lease_claude_usage
SET
  published_run_id = @run_id,
  triggers = @triggers,
  expires_at = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL @seconds SECOND)
WHERE run_id = @run_id AND fence = @fence AND IFNULL(published_run_id != @run_id, TRUE);
ASSERT @@row_count = 1 AS 'the lease was lost';
DELETE FROM dog_breeds
WHERE TRUE;
INSERT INTO dog_breeds (
  id, name, weight_kg_min, weight_kg_max, height_cm_min, height_cm_max, life_span_years_min,
  life_span_years_max, temperaments, bred_for, breed_group, origin, country_code, description,
  reference_image_id, image_url, image_width, image_height, raw, ingestion_timestamp
)
SELECT
  id, name, weight_kg_min, weight_kg_max, height_cm_min, height_cm_max, life_span_years_min,
  life_span_years_max, temperaments, bred_for, breed_group, origin, country_code, description,
  reference_image_id, image_url, image_width, image_height,
  PARSE_JSON(raw, wide_number_mode => 'round'), ingestion_timestamp
FROM staging_dog_breeds;
COMMIT TRANSACTION;
