SELECT COUNT(*) AS split FROM staging_split
