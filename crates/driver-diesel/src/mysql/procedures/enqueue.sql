-- Stores a job in the caller's transaction. What callers may rely on is written in docs/guide/sql.md.
--
-- It begins no transaction and ends none, and refuses to work outside of one. A procedure that begins its own must end it when it is
-- interrupted; but no handler runs when somebody kills the statement or its time is over, and then whatever the session does next
-- would lie in a transaction that nobody knows of. A statement of its own is also what triggers need: they may call nothing that commits.
--
-- Locking: as an insert by the library. The row of the key: whoever enqueues the same key meanwhile waits for the caller's commit.

CREATE PROCEDURE qudo_enqueue(
    IN new_ability LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_arg LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_queue LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_priority BIGINT,
    IN new_run_after DATETIME(6),
    IN new_uniqkey LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_meta LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_id VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    OUT job_id CHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    OUT is_new BOOLEAN
)
COMMENT 'qudo 1'
MODIFIES SQL DATA
SQL SECURITY INVOKER
BEGIN
    DECLARE now_at BIGINT DEFAULT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6));
    DECLARE due, number BIGINT;
    DECLARE job, holder BINARY(16);
    DECLARE claim_rank_of_job INT;
    DECLARE tries INT DEFAULT 0;
    DECLARE is_taken BOOLEAN;
    DECLARE wrong VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

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
    ELSEIF NOT COALESCE(JSON_VALID(new_arg), 0) THEN
        SET wrong = 'the argument is no JSON';
    ELSEIF new_priority NOT BETWEEN -2147483648 AND 2147483647 THEN
        SET wrong = 'the priority has to be a number of 32 bits';
    ELSEIF new_run_after > NOW(6) + INTERVAL 366 DAY THEN
        SET wrong = 'a job cannot be put off for more than a year';
    ELSEIF new_id NOT REGEXP '\\A[0-9a-f]{32}\\z' THEN
        SET wrong = 'the id has to be a UUID: 32 hexadecimal digits, with dashes or without';
    ELSEIF LENGTH(new_meta) > 65536 THEN
        SET wrong = 'the metadata takes more than 65536 bytes';
    ELSEIF new_meta IS NOT NULL AND NOT COALESCE(JSON_VALID(new_meta) AND JSON_TYPE(new_meta) = 'OBJECT', 0) THEN
        SET wrong = 'the metadata is no JSON object';
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
    ELSEIF EXISTS (SELECT 1 FROM qudo_control WHERE name = 'draining') THEN
        SET wrong = 'the database is draining: it takes no new jobs';
    END IF;
    IF wrong IS NOT NULL THEN
        SET wrong = CONCAT('qudo: ', wrong);
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = wrong;
    END IF;

    -- Outside of a transaction a savepoint is gone with its statement.
    SAVEPOINT qudo_enqueue;
    BEGIN
        DECLARE EXIT HANDLER FOR 1305
            SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT =
                'qudo: an enqueue needs a transaction: begin one (START TRANSACTION), or set autocommit = 0';
        ROLLBACK TO SAVEPOINT qudo_enqueue;
    END;

    -- A UUIDv7 whose first free bits are the time in fractions of a millisecond, so that jobs of one session run in the order in which
    -- they were enqueued. The time stands still within a statement whose trigger enqueues many, so they are numbered on.
    SET number = now_at DIV 1000 * 4096 + now_at MOD 1000 * 4096 DIV 1000;
    IF @qudo_number BETWEEN number AND number + 4096000 THEN
        SET number = @qudo_number + 1;
    END IF;
    SET @qudo_number = number;
    SET job = UNHEX(COALESCE(new_id, CONCAT(LPAD(HEX(number DIV 4096), 12, '0'), '7', LPAD(HEX(number MOD 4096), 3, '0'),
        SUBSTR('89AB', 1 + FLOOR(RAND() * 4), 1), SUBSTR(SHA2(CONCAT(UUID(), RAND()), 256), 1, 15))));
    SET claim_rank_of_job = -GREATEST(new_priority, -2147483647);
    IF new_run_after > NOW(6) THEN
        SET due = UNIX_TIMESTAMP(new_run_after) * 1000000;
    END IF;
    SET is_new = new_id IS NULL OR NOT EXISTS (SELECT 1 FROM qudo_job WHERE id = job);
    work: BEGIN
        -- A deadlock has removed the savepoint with the transaction.
        DECLARE EXIT HANDLER FOR SQLEXCEPTION
        BEGIN
            BEGIN
                DECLARE CONTINUE HANDLER FOR 1305 BEGIN END;
                ROLLBACK TO SAVEPOINT qudo_enqueue;
            END;
            RESIGNAL;
        END;
        IF NOT is_new THEN
            LEAVE work;
        END IF;
        key_of_job: LOOP
            IF new_uniqkey IS NULL THEN
                LEAVE key_of_job;
            END IF;
            SET is_taken = FALSE;
            BEGIN
                DECLARE CONTINUE HANDLER FOR 1062 SET is_taken = TRUE;
                INSERT INTO qudo_unique (ability, uniqkey, id) VALUES (new_ability, new_uniqkey, job);
            END;
            IF NOT is_taken THEN
                LEAVE key_of_job;
            END IF;
            -- Also one that was committed after the caller's transaction began.
            SET holder = (SELECT u.id FROM qudo_unique u
                WHERE u.ability = new_ability AND u.uniqkey = CAST(new_uniqkey AS BINARY) LOCK IN SHARE MODE);
            IF holder = job THEN
                LEAVE key_of_job;
            END IF;
            IF holder IS NOT NULL THEN
                SET is_new = FALSE, job = holder;
                LEAVE work;
            END IF;
            -- The holder ended between the insert and the look: the key is free again.
            SET tries = tries + 1;
            IF tries = 5 THEN
                SIGNAL SQLSTATE '40001' SET MESSAGE_TEXT = 'qudo: the unique key changed hands too often';
            END IF;
        END LOOP;
        BEGIN
            -- Somebody stored a job with this id while we looked.
            DECLARE CONTINUE HANDLER FOR 1062 SET is_new = FALSE;
            INSERT INTO qudo_job (id, ability, queue, codec, arg, priority, uniqkey, meta, enqueued_at)
            VALUES (job, new_ability, new_queue, 'json', new_arg, -claim_rank_of_job, new_uniqkey,
                NULLIF(new_meta, '{}'), now_at);
        END;
        IF NOT is_new THEN
            ROLLBACK TO SAVEPOINT qudo_enqueue;
            LEAVE work;
        END IF;
        IF due IS NULL THEN
            INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags)
            VALUES (new_queue, claim_rank_of_job, job, new_ability, 0, 0, new_uniqkey IS NOT NULL);
        ELSE
            INSERT INTO qudo_scheduled (run_after, id, queue, claim_rank, ability, attempt, crashes, flags)
            VALUES (due, job, new_queue, claim_rank_of_job, new_ability, 0, 0, new_uniqkey IS NOT NULL);
        END IF;
        -- Looked for: in a trigger MariaDB does not count the rows of an insert.
        IF NOT EXISTS (SELECT 1 FROM qudo_job WHERE id = job)
            OR NOT EXISTS (SELECT 1 FROM qudo_ready WHERE queue = new_queue AND claim_rank = claim_rank_of_job AND id = job)
                AND NOT EXISTS (SELECT 1 FROM qudo_scheduled WHERE id = job)
        THEN
            SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'qudo: rows do not add up in the step "enqueue"';
        END IF;
    END;
    RELEASE SAVEPOINT qudo_enqueue;
    SET job_id = LOWER(HEX(job));
END;
