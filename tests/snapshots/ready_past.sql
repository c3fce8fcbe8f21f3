SELECT COUNT(*) AS row_count
FROM `my-project`.`posthog_etl`.`events` FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP()
WHERE ((`timestamp` >= TIMESTAMP '2018-01-01 00:00:00+00' AND `timestamp` < TIMESTAMP '2018-01-01 00:00:00+00'))
