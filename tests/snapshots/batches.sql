WITH copies AS (
  SELECT
    s.batch, s.session_no, p.uuid, p.event_at, p.event, p.distinct_id, p.screen_name, p.current_url,
    p.pathname, p.referring_domain, p.utm_source, p.utm_medium, p.utm_campaign, p.lib, p.os,
    p.device_type, p.app_version, p.country, p.city, p.event_type, p.scroll_depth, p.content_depth,
    p.touch_y, p.touch_reach, p.anonymous_id,
    ROW_NUMBER() OVER (
      PARTITION BY p.session_id, p.uuid
      ORDER BY p.ingested_at DESC, p.event_at DESC, p.row_hash DESC
    ) AS copy_no
  FROM staging_projected AS p
  JOIN staging_planned AS s ON s.session_id = p.session_id
  WHERE p.reason IS NULL AND NOT s.is_quarantined
)
SELECT
  batch, session_no,
  ROW_NUMBER() OVER in_order AS event_no,
  event_at, event,
  IF(
    (event = '$identify' AND anonymous_id IS NOT NULL)
    OR distinct_id IS DISTINCT FROM LAG(distinct_id) OVER in_order,
    distinct_id,
    NULL
  ) AS distinct_id,
  IF(
    screen_name IS DISTINCT FROM LAG(screen_name) OVER in_order
    OR (event IN ('$pageview', '$screen')) IS DISTINCT FROM LAG(event IN ('$pageview', '$screen')) OVER in_order,
    screen_name,
    NULL
  ) AS screen_name,
  IF(
    current_url IS DISTINCT FROM LAG(current_url) OVER in_order
    OR (event IN ('$pageview', '$screen')) IS DISTINCT FROM LAG(event IN ('$pageview', '$screen')) OVER in_order,
    current_url,
    NULL
  ) AS current_url,
  IF(
    pathname IS DISTINCT FROM LAG(pathname) OVER in_order
    OR (event = '$pageview') IS DISTINCT FROM LAG(event = '$pageview') OVER in_order,
    pathname,
    NULL
  ) AS pathname,
  IF(
    referring_domain IS DISTINCT FROM LAG(referring_domain) OVER in_order
    OR (event IN ('$pageview', '$screen')) IS DISTINCT FROM LAG(event IN ('$pageview', '$screen')) OVER in_order,
    referring_domain,
    NULL
  ) AS referring_domain,
  IF(
    utm_source IS DISTINCT FROM LAG(utm_source) OVER in_order
    OR (event IN ('$pageview', '$screen')) IS DISTINCT FROM LAG(event IN ('$pageview', '$screen')) OVER in_order,
    utm_source,
    NULL
  ) AS utm_source,
  IF(
    utm_medium IS DISTINCT FROM LAG(utm_medium) OVER in_order
    OR (event IN ('$pageview', '$screen')) IS DISTINCT FROM LAG(event IN ('$pageview', '$screen')) OVER in_order,
    utm_medium,
    NULL
  ) AS utm_medium,
  IF(
    utm_campaign IS DISTINCT FROM LAG(utm_campaign) OVER in_order
    OR (event IN ('$pageview', '$screen')) IS DISTINCT FROM LAG(event IN ('$pageview', '$screen')) OVER in_order,
    utm_campaign,
    NULL
  ) AS utm_campaign,
  IF(lib IS DISTINCT FROM LAG(lib) OVER in_order, lib, NULL) AS lib,
  IF(os IS DISTINCT FROM LAG(os) OVER in_order, os, NULL) AS os,
  IF(device_type IS DISTINCT FROM LAG(device_type) OVER in_order, device_type, NULL) AS device_type,
  IF(app_version IS DISTINCT FROM LAG(app_version) OVER in_order, app_version, NULL) AS app_version,
  IF(country IS DISTINCT FROM LAG(country) OVER in_order, country, NULL) AS country,
  IF(city IS DISTINCT FROM LAG(city) OVER in_order, city, NULL) AS city,
  IF(
    ((event = '$autocapture' AND IFNULL(event_type IN ('scroll', 'swipe'), FALSE)) OR event = 'scroll'),
    event_type,
    NULL
  ) AS event_type,
  IF(
    scroll_depth IS DISTINCT FROM LAG(scroll_depth) OVER in_order,
    scroll_depth,
    NULL
  ) AS scroll_depth,
  IF(
    content_depth IS DISTINCT FROM LAG(content_depth) OVER in_order,
    content_depth,
    NULL
  ) AS content_depth,
  IF(event = '$autocapture' AND touch_y IS NOT NULL, touch_y, NULL) AS touch_y,
  IF(touch_reach IS DISTINCT FROM LAG(touch_reach) OVER in_order, touch_reach, NULL) AS touch_reach,
  IF(event = '$identify' AND anonymous_id IS NOT NULL, anonymous_id, NULL) AS anonymous_id
FROM copies
WHERE copy_no = 1
WINDOW in_order AS (PARTITION BY batch, session_no ORDER BY event_at, uuid)
