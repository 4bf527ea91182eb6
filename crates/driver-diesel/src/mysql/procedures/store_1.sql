-- Stores a job in the caller's transaction; for the procedure of users and for adapters to other libraries, which have checked it. Not
-- new is a job whose id is stored already, or whose key a live job holds, which is the one that is answered then. Its name ends
-- in a number, because clients of two versions may work on one database. It looks for no draining: whoever chose the connection
-- has chosen the database.
--
-- It begins no transaction and ends none, and refuses to work outside of one. A procedure that begins its own must end it when it is
-- interrupted; but no handler runs when somebody kills the statement or its time is over, and then whatever the session does next
-- would lie in a transaction that nobody knows of. Triggers, too, may call nothing that commits.
--
-- Looks are SELECT .. INTO: a subselect of SET or IF locks what it reads, and the gap where it finds nothing, for the caller's whole
-- transaction.
--
-- Locking: as an insert by the library. The row of the key: whoever enqueues the same key meanwhile waits for the caller's commit.

CREATE PROCEDURE qudo_store_1(
    IN new_id BINARY(16),
    IN new_ability VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_queue VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_codec VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_arg LONGBLOB,
    IN new_priority INT,
    IN run_at BIGINT,
    IN new_delay BIGINT,
    IN new_uniqkey VARBINARY(500),
    IN new_meta MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    OUT job BINARY(16),
    OUT is_new BOOLEAN
)
COMMENT 'qudo 1'
MODIFIES SQL DATA
SQL SECURITY INVOKER
BEGIN
    DECLARE now_at BIGINT DEFAULT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6));
    DECLARE due BIGINT DEFAULT COALESCE(run_at, now_at + new_delay);
    DECLARE holder BINARY(16);
    DECLARE is_taken BOOLEAN;
    DECLARE tries INT DEFAULT 0;
    DECLARE facts, places INT;

    -- Outside of a transaction a savepoint is gone with its statement.
    SAVEPOINT qudo_store_1_begun;
    BEGIN
        DECLARE EXIT HANDLER FOR 1305
            SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT =
                'qudo: an enqueue needs a transaction: begin one (START TRANSACTION), or set autocommit = 0';
        ROLLBACK TO SAVEPOINT qudo_store_1_begun;
    END;

    SET job = new_id, is_new = TRUE;
    work: BEGIN
        -- A deadlock has removed the savepoint with the transaction.
        DECLARE EXIT HANDLER FOR SQLEXCEPTION
        BEGIN
            BEGIN
                DECLARE CONTINUE HANDLER FOR 1305 BEGIN END;
                ROLLBACK TO SAVEPOINT qudo_store_1_begun;
            END;
            RESIGNAL;
        END;
        -- The key of the table decides, not a look before: one would find a row that is rolled back, or none that the caller's snapshot is
        -- older than, or lock the gap. An id that is there keeps its row locked for the caller's transaction, so that its job does not
        -- end before.
        BEGIN
            DECLARE CONTINUE HANDLER FOR 1062 SET is_new = FALSE;
            INSERT INTO qudo_job (id, ability, queue, codec, arg, priority, uniqkey, meta, enqueued_at)
            VALUES (job, new_ability, new_queue, new_codec, new_arg, new_priority, new_uniqkey, new_meta, now_at);
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
            SELECT MAX(u.id) INTO holder FROM qudo_unique u
            WHERE u.ability = new_ability AND u.uniqkey = new_uniqkey LOCK IN SHARE MODE;
            IF holder = job THEN
                LEAVE key_of_job;
            END IF;
            IF holder IS NOT NULL THEN
                ROLLBACK TO SAVEPOINT qudo_store_1_begun;
                SET is_new = FALSE, job = holder;
                LEAVE work;
            END IF;
            -- The holder ended between the insert and the look: the key is free again.
            SET tries = tries + 1;
            IF tries = 5 THEN
                SIGNAL SQLSTATE '40001' SET MESSAGE_TEXT = 'qudo: the unique key changed hands too often';
            END IF;
        END LOOP;
        IF due <= now_at THEN
            INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags)
            VALUES (new_queue, -new_priority, job, new_ability, 0, 0, new_uniqkey IS NOT NULL);
        ELSE
            INSERT INTO qudo_scheduled (run_after, id, queue, claim_rank, ability, attempt, crashes, flags)
            VALUES (due, job, new_queue, -new_priority, new_ability, 0, 0, new_uniqkey IS NOT NULL);
        END IF;
        -- Looked for: in a trigger MariaDB does not count the rows of an insert.
        SELECT COUNT(*) INTO facts FROM qudo_job WHERE id = job;
        IF due <= now_at THEN
            SELECT COUNT(*) INTO places FROM qudo_ready WHERE queue = new_queue AND claim_rank = -new_priority AND id = job;
        ELSE
            SELECT COUNT(*) INTO places FROM qudo_scheduled WHERE run_after = due AND id = job;
        END IF;
        IF facts <> 1 OR places <> 1 THEN
            SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'qudo: rows do not add up in the step "enqueue"';
        END IF;
    END;
    RELEASE SAVEPOINT qudo_store_1_begun;
END;
