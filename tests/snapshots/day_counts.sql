SELECT partition_id, total_rows
FROM `my-project`.`posthog_etl`.INFORMATION_SCHEMA.PARTITIONS
WHERE table_name = 'events'
