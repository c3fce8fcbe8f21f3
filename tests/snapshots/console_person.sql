SELECT *
FROM persons
WHERE person_id = @id
ORDER BY user_id IS NULL
LIMIT 1
