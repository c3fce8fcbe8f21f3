SELECT *
FROM persons
WHERE person_id = @id
  OR person_id IN (SELECT user_id FROM identities WHERE anonymous_id = @id)
ORDER BY user_id IS NULL
LIMIT 1
