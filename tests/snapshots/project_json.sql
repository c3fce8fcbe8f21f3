WITH source_rows AS (
  SELECT
    NULLIF(`uuid`, '') AS uuid,
    IFNULL(`event`, '') AS event,
    NULLIF(REGEXP_REPLACE(`distinct_id`, r'^[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+|[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+$', ''), '') AS distinct_id,
    `timestamp` AS event_at,
    `bq_ingested_timestamp` AS ingested_at,
    TRUE AS has_properties,
    IF(NULLIF(`uuid`, '') IS NULL, TO_JSON_STRING(`properties`), NULL) AS raw_text,
    `properties` AS properties
  FROM `my-project`.`posthog_etl`.`events`
    FOR SYSTEM_TIME AS OF @snapshot_at
  WHERE ((`timestamp` >= TIMESTAMP '2026-10-04 00:00:00+00' AND `timestamp` < TIMESTAMP '2026-10-06 00:00:00+00')
    OR (`timestamp` >= TIMESTAMP '2026-10-09 00:00:00+00' AND `timestamp` < TIMESTAMP '2026-10-10 00:00:00+00'))
),
text_values AS (
  SELECT
    uuid, event, distinct_id, event_at, ingested_at, raw_text,
    properties IS NULL AND has_properties AS is_malformed,
    NULLIF(REGEXP_REPLACE(COALESCE(
      NULLIF(JSON_VALUE(properties, '$."$session_id"'), ''),
      NULLIF(JSON_VALUE(properties, '$."session_id"'), ''),
      NULLIF(JSON_VALUE(properties, '$."sessionId"'), '')
    ), r'^[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+|[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+$', ''), '') AS session_id,
    NULLIF(JSON_VALUE(properties, '$."$is_emulator"'), '') AS is_emulator,
    NULLIF(JSON_VALUE(properties, '$."$browser_type"'), '') AS browser_type,
    NULLIF(REGEXP_REPLACE(NULLIF(JSON_VALUE(properties, '$."$anon_distinct_id"'), ''), r'^[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+|[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+$', ''), '') AS tied_id_1,
    NULLIF(REGEXP_REPLACE(NULLIF(JSON_VALUE(properties, '$."alias"'), ''), r'^[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+|[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+$', ''), '') AS tied_id_2,
    COALESCE(
      NULLIF(JSON_VALUE(properties, '$."$screen_name"'), ''),
      NULLIF(JSON_VALUE(properties, '$."screen_name"'), '')
    ) AS screen_name,
    NULLIF(JSON_VALUE(properties, '$."$current_url"'), '') AS current_url,
    NULLIF(JSON_VALUE(properties, '$."$pathname"'), '') AS pathname,
    NULLIF(JSON_VALUE(properties, '$."$referring_domain"'), '') AS referring_domain,
    NULLIF(JSON_VALUE(properties, '$."utm_source"'), '') AS utm_source,
    NULLIF(JSON_VALUE(properties, '$."utm_medium"'), '') AS utm_medium,
    NULLIF(JSON_VALUE(properties, '$."utm_campaign"'), '') AS utm_campaign,
    NULLIF(JSON_VALUE(properties, '$."$lib"'), '') AS lib,
    COALESCE(
      NULLIF(JSON_VALUE(properties, '$."$os"'), ''),
      NULLIF(JSON_VALUE(properties, '$."$os_name"'), '')
    ) AS os,
    NULLIF(JSON_VALUE(properties, '$."$device_type"'), '') AS device_type,
    NULLIF(JSON_VALUE(properties, '$."$app_version"'), '') AS app_version,
    COALESCE(
      NULLIF(JSON_VALUE(properties, '$."$geoip_country_name"'), ''),
      NULLIF(JSON_VALUE(properties, '$."$geoip_country_code"'), '')
    ) AS country,
    NULLIF(JSON_VALUE(properties, '$."$geoip_city_name"'), '') AS city,
    NULLIF(JSON_VALUE(properties, '$."$event_type"'), '') AS event_type,
    NULLIF(JSON_VALUE(properties, '$."$prev_pageview_max_scroll_percentage"'), '') AS scroll_depth,
    NULLIF(JSON_VALUE(properties, '$."$prev_pageview_max_content_percentage"'), '') AS content_depth,
    COALESCE(
      NULLIF(JSON_VALUE(properties, '$."$touch_y"'), ''),
      NULLIF(JSON_VALUE(properties, '$."touch_y"'), '')
    ) AS touch_y,
    COALESCE(
      NULLIF(JSON_VALUE(properties, '$."$screen_height"'), ''),
      NULLIF(JSON_VALUE(properties, '$."$viewport_height"'), '')
    ) AS touch_reach_per,
    NULLIF(REGEXP_REPLACE(NULLIF(JSON_VALUE(properties, '$."$anon_distinct_id"'), ''), r'^[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+|[\s\x0b\x{85}\x{200b}\x{feff}\pZ]+$', ''), '') AS anonymous_id
  FROM source_rows
),
number_values AS (
  SELECT
    IF(
      REGEXP_REPLACE(LOWER(session_id), r'^[\[\](){}<>\x22\x27\x60]+|[\[\](){}<>\x22\x27\x60]+$', '') IN (
      '', '0', 'anonymous', 'distinct_id', 'distinctid', 'email', 'false', 'guest', 'id', 'nan',
      'none', 'not_authenticated', 'null', 'object object', 'true', 'undefined', '#n/a',
      '-infinity', '0.0', '00000000-0000-0000-0000-000000000000',
      '00000000000000000000000000000000', 'infinity', 'invalid date', 'n/a', 'na', 'nat', 'nil',
      'object null', 'object promise', 'object undefined', 'unknown'
    ),
      NULL,
      IFNULL(
        REGEXP_EXTRACT(LOWER(session_id), r'^[{(]?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})[)}]?$'),
        session_id
      )
    ) AS session_id,
    uuid, event, distinct_id, event_at, ingested_at, is_malformed, is_emulator, browser_type,
    screen_name, current_url, pathname, referring_domain, utm_source, utm_medium, utm_campaign, lib,
    os, device_type, app_version, country, city, event_type, anonymous_id,
    CASE
      WHEN event = '$identify' THEN tied_id_1
      WHEN event IN ('$create_alias', '$merge_dangerously') THEN tied_id_2
    END AS tied_id,
    ARRAY_TO_STRING(
      [raw_text, screen_name, current_url, pathname, referring_domain, utm_source, utm_medium,
       utm_campaign, lib, os, device_type, app_version, country, city, event_type, scroll_depth,
       content_depth, touch_y, touch_reach_per, anonymous_id],
      '\x1f',
      '\x1e'
    ) AS texts,
    IF(
      REGEXP_CONTAINS(scroll_depth, r'^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$')
      AND NOT IS_INF(SAFE_CAST(scroll_depth AS FLOAT64)),
      SAFE_CAST(scroll_depth AS FLOAT64),
      NULL
    ) AS scroll_depth,
    IF(
      REGEXP_CONTAINS(content_depth, r'^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$')
      AND NOT IS_INF(SAFE_CAST(content_depth AS FLOAT64)),
      SAFE_CAST(content_depth AS FLOAT64),
      NULL
    ) AS content_depth,
    IF(
      REGEXP_CONTAINS(touch_y, r'^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$')
      AND NOT IS_INF(SAFE_CAST(touch_y AS FLOAT64)),
      SAFE_CAST(touch_y AS FLOAT64),
      NULL
    ) AS touch_y,
    IF(
      REGEXP_CONTAINS(touch_reach_per, r'^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$')
      AND NOT IS_INF(SAFE_CAST(touch_reach_per AS FLOAT64)),
      SAFE_CAST(touch_reach_per AS FLOAT64),
      NULL
    ) AS touch_reach_per
  FROM text_values
  WHERE IF(
      REGEXP_REPLACE(LOWER(session_id), r'^[\[\](){}<>\x22\x27\x60]+|[\[\](){}<>\x22\x27\x60]+$', '') IN (
      '', '0', 'anonymous', 'distinct_id', 'distinctid', 'email', 'false', 'guest', 'id', 'nan',
      'none', 'not_authenticated', 'null', 'object object', 'true', 'undefined', '#n/a',
      '-infinity', '0.0', '00000000-0000-0000-0000-000000000000',
      '00000000000000000000000000000000', 'infinity', 'invalid date', 'n/a', 'na', 'nat', 'nil',
      'object null', 'object promise', 'object undefined', 'unknown'
    ),
      NULL,
      IFNULL(
        REGEXP_EXTRACT(LOWER(session_id), r'^[{(]?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})[)}]?$'),
        session_id
      )
    ) IN (SELECT session_id FROM staging_touched)
),
typed_values AS (
  SELECT
    session_id, uuid, event, distinct_id, event_at, ingested_at,
    TO_HEX(MD5(ARRAY_TO_STRING(
      [session_id, event, distinct_id, CAST(UNIX_MICROS(event_at) AS STRING), texts],
      '\x1f',
      '\x1e'
    ))) AS row_hash,
    IFNULL(REGEXP_CONTAINS(session_id, r'/[0-9]{4}-[0-9]{2}-[0-9]{2}/'), FALSE) AS is_split,
    CASE
      WHEN event_at IS NULL OR event_at < TIMESTAMP '2018-01-01 00:00:00+00'
        OR TIMESTAMP_DIFF(event_at, ingested_at, MICROSECOND) > 86400000000
        THEN 'bad_timestamp'
      WHEN is_malformed THEN 'malformed'
      WHEN session_id IS NULL THEN 'no_session'
      WHEN IFNULL(distinct_id IN UNNEST(@excluded_distinct_ids), FALSE)
        OR IFNULL(lib IN UNNEST(@excluded_libs), FALSE)
        OR IFNULL(LOWER(is_emulator) IN ('true', '1'), FALSE)
        OR IFNULL(browser_type = 'bot', FALSE)
        THEN 'excluded'
    END AS reason,
    IF(
      IFNULL(distinct_id IN UNNEST(@excluded_distinct_ids), FALSE)
        OR IFNULL(lib IN UNNEST(@excluded_libs), FALSE)
        OR IFNULL(LOWER(is_emulator) IN ('true', '1'), FALSE)
        OR IFNULL(browser_type = 'bot', FALSE),
      NULL,
      tied_id
    ) AS tied_id,
    screen_name, current_url, pathname, referring_domain, utm_source, utm_medium, utm_campaign, lib,
    os, device_type, app_version, country, city, event_type, touch_y, anonymous_id,
    GREATEST(0.0, LEAST(1.0, scroll_depth)) AS scroll_depth,
    GREATEST(0.0, LEAST(1.0, content_depth)) AS content_depth,
    GREATEST(
      0.0,
      LEAST(1.0, IEEE_DIVIDE(touch_y, IF(touch_reach_per > 0, touch_reach_per, NULL)))
    ) AS touch_reach
  FROM number_values
)
SELECT
  IF(is_split, CONCAT(session_id, '/', CAST(DATE(event_at) AS STRING), '/', IFNULL(distinct_id, '')), session_id) AS session_id,
  IFNULL(uuid, row_hash) AS uuid, event, distinct_id, event_at, ingested_at, row_hash,
  CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5(ARRAY_TO_STRING([row_hash, uuid, CAST(UNIX_MICROS(ingested_at) AS STRING)], '\x1f', '\x1e'))), 1, 15)) AS INT64) AS digest,
  is_split, tied_id,
  reason, screen_name, current_url, pathname, referring_domain, utm_source, utm_medium,
  utm_campaign, lib, os, device_type, app_version, country, city, event_type, scroll_depth,
  content_depth, touch_y, touch_reach, anonymous_id
FROM typed_values
