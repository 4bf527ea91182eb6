-- Checks a job and stores it in the caller's transaction. What callers may rely on is written in docs/guide/sql.md.
--
-- Locking: as qudo_store_1.

CREATE PROCEDURE qudo_enqueue(
    IN new_ability LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_arg LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_queue LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_priority BIGINT,
    IN new_run_after DATETIME(6),
    IN new_uniqkey LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_meta LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_id LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    OUT job_id CHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    OUT is_new BOOLEAN
)
COMMENT 'qudo 1'
MODIFIES SQL DATA
SQL SECURITY INVOKER
BEGIN
    DECLARE now_at BIGINT DEFAULT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6));
    DECLARE number BIGINT;
    DECLARE job, answer BINARY(16);
    DECLARE is_draining BOOLEAN;
    DECLARE wrong VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

    -- Not in the condition, where it would lock the place of the order for the caller's whole transaction.
    SELECT COUNT(*) > 0 INTO is_draining FROM qudo_control WHERE name = 'draining';
    SET job_id = NULL, is_new = NULL, new_queue = COALESCE(new_queue, 'default'), new_arg = COALESCE(new_arg, 'null'),
        new_priority = COALESCE(new_priority, 0), new_id = LOWER(REPLACE(new_id, '-', ''));
    IF new_ability IS NULL OR new_ability NOT REGEXP '\\A[!-~]{1,100}\\z'
        AND (LENGTH(new_ability) NOT BETWEEN 1 AND 100 OR new_ability REGEXP '\\p{Cc}' OR new_ability REGEXP '\\A\\p{Z}|\\p{Z}\\z')
    THEN
        SET wrong = 'the ability has to have 1 to 100 bytes, no control characters, no spaces at its ends';
    ELSEIF new_queue NOT REGEXP '\\A[!-~]{1,100}\\z'
        AND (LENGTH(new_queue) NOT BETWEEN 1 AND 100 OR new_queue REGEXP '\\p{Cc}' OR new_queue REGEXP '\\A\\p{Z}|\\p{Z}\\z')
    THEN
        SET wrong = 'the queue has to have 1 to 100 bytes, no control characters, no spaces at its ends';
    ELSEIF LENGTH(new_uniqkey) NOT BETWEEN 1 AND 500 OR LOCATE(CHAR(0), new_uniqkey) THEN
        SET wrong = 'the unique key has to have 1 to 500 bytes, none of them NUL';
    ELSEIF LENGTH(new_arg) > 8388608 THEN
        SET wrong = 'the argument takes more than 8388608 bytes';
    ELSEIF NOT COALESCE(JSON_VALID(new_arg), 0) OR LOCATE(CHAR(0), new_arg) THEN
        SET wrong = 'the argument is no JSON';
    ELSEIF new_priority NOT BETWEEN -2147483648 AND 2147483647 THEN
        SET wrong = 'the priority has to be a number of 32 bits';
    ELSEIF new_run_after > NOW(6) + INTERVAL 366 DAY THEN
        SET wrong = 'a job cannot be put off for more than a year';
    ELSEIF new_run_after < '1970-01-02' THEN
        -- What a session without strict mode makes of a text that is no time.
        SET wrong = 'run_after is no time';
    ELSEIF new_id NOT REGEXP '\\A[0-9a-f]{32}\\z' THEN
        SET wrong = 'the id has to be a UUID: 32 hexadecimal digits, with dashes or without';
    ELSEIF LENGTH(new_meta) > 65536 THEN
        SET wrong = 'the metadata takes more than 65536 bytes';
    ELSEIF new_meta IS NOT NULL AND NOT COALESCE(JSON_VALID(new_meta) AND JSON_TYPE(new_meta) = 'OBJECT', 0) THEN
        SET wrong = 'the metadata is no JSON object';
    ELSEIF LOCATE('\\u0000', new_meta) OR LOCATE(CHAR(0), new_meta) THEN
        SET wrong = 'the metadata contains NUL';
    ELSEIF JSON_DEPTH(new_meta) > 66 THEN
        SET wrong = 'the metadata is nested on more than 64 levels';
    ELSEIF JSON_TYPE(JSON_EXTRACT(new_meta, '$.tags')) <> 'ARRAY' OR EXISTS (
        SELECT 1 FROM JSON_TABLE(COALESCE(JSON_EXTRACT(new_meta, '$.tags'), '[]'), '$[*]'
            COLUMNS (one JSON PATH '$', name TEXT CHARACTER SET utf8mb4 PATH '$')) x
        WHERE JSON_TYPE(x.one) <> 'STRING' OR x.name IS NULL OR LENGTH(x.name) NOT BETWEEN 1 AND 100 OR x.name REGEXP '\\p{Cc}' OR x.name REGEXP '\\A\\p{Z}|\\p{Z}\\z')
    THEN
        SET wrong = 'the tags have to be a list of texts of 1 to 100 bytes, no control characters, no spaces at their ends';
    ELSEIF new_meta IS NOT NULL AND EXISTS (
        SELECT 1 FROM JSON_TABLE(JSON_KEYS(new_meta), '$[*]' COLUMNS (name TEXT CHARACTER SET utf8mb4 PATH '$')) x
        WHERE x.name IS NULL OR LENGTH(x.name) NOT BETWEEN 1 AND 100 OR x.name REGEXP '\\p{Cc}' OR x.name REGEXP '\\A\\p{Z}|\\p{Z}\\z')
    THEN
        SET wrong = 'names of metadata have to have 1 to 100 bytes, no control characters, no spaces at their ends';
    ELSEIF is_draining THEN
        SET wrong = 'the database is draining: it takes no new jobs';
    END IF;
    IF wrong IS NOT NULL THEN
        SET wrong = CONCAT('qudo: ', wrong);
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = wrong;
    END IF;

    -- A UUIDv7 whose first free bits are the time in fractions of a millisecond, so that jobs of one session run in the order in which
    -- they were enqueued. The time stands still within a statement whose trigger enqueues many, so they are numbered on.
    SET number = now_at DIV 1000 * 4096 + now_at MOD 1000 * 4096 DIV 1000;
    IF @qudo_number BETWEEN number AND number + 4096000 THEN
        SET number = @qudo_number + 1;
    END IF;
    SET @qudo_number = number;
    SET job = UNHEX(COALESCE(new_id, CONCAT(LPAD(HEX(number DIV 4096), 12, '0'), '7', LPAD(HEX(number MOD 4096), 3, '0'),
        SUBSTR('89AB', 1 + FLOOR(RAND() * 4), 1), SUBSTR(SHA2(CONCAT(UUID(), RAND()), 256), 1, 15))));
    CALL qudo_store_1(job, new_ability, new_queue, 'json', new_arg, GREATEST(new_priority, -2147483647),
        IF(new_run_after > NOW(6), UNIX_TIMESTAMP(new_run_after) * 1000000, NULL), 0, new_uniqkey, NULLIF(new_meta, '{}'),
        answer, is_new);
    SET job_id = LOWER(HEX(answer));
END;
