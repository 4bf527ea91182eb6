-- Stores a job that is ready at once in one round trip: as statements of their own the two inserts
-- and the transaction around them take four. Not a migration, because everything works without it,
-- only slower: an account may lack the privilege CREATE ROUTINE, and a restored copy the procedure.
-- Its name ends in a number, because clients of two versions may work on one database. For jobs with neither a
-- unique key nor metadata.

CREATE PROCEDURE qudo_enqueue_1(
    IN new_id BINARY(16),
    IN new_queue VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_ability VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_codec VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_arg LONGBLOB,
    IN new_priority INT,
    IN not_before BIGINT,
    IN not_after BIGINT
)
MODIFIES SQL DATA
SQL SECURITY INVOKER
BEGIN
    DECLARE asked_at BIGINT DEFAULT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6));
    DECLARE EXIT HANDLER FOR SQLEXCEPTION
    BEGIN
        ROLLBACK;
        RESIGNAL;
    END;
    -- Whoever called has left by then, and stored the job elsewhere.
    IF asked_at NOT BETWEEN not_before AND not_after THEN
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'qudo: too late';
    END IF;
    START TRANSACTION;
    INSERT INTO qudo_job (id, queue, ability, codec, arg, priority, enqueued_at)
    VALUES (new_id, new_queue, new_ability, new_codec, new_arg, new_priority, asked_at);
    INSERT INTO qudo_ready (id, queue, claim_rank, ability, attempt, crashes, flags)
    VALUES (new_id, new_queue, -new_priority, new_ability, 0, 0, 0);
    -- The inserts may have waited, for somebody's lock of a whole table.
    IF TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) NOT BETWEEN not_before AND not_after
    THEN
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'qudo: too late';
    END IF;
    COMMIT;
END;
