-- Stores a job that is ready at once in one round trip: as statements of their own the two inserts
-- and the transaction around them take four. Not a migration, because everything works without it,
-- only slower: an account may lack the privilege CREATE ROUTINE, and a restored copy the procedure.
-- Its name ends in a number, because clients of two versions may work on one database.

CREATE PROCEDURE qudo_enqueue_1(
    IN new_id BINARY(16),
    IN new_queue VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_ability VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_codec VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    IN new_arg LONGBLOB,
    IN new_priority INT
)
MODIFIES SQL DATA
SQL SECURITY INVOKER
BEGIN
    DECLARE EXIT HANDLER FOR SQLEXCEPTION
    BEGIN
        ROLLBACK;
        RESIGNAL;
    END;
    START TRANSACTION;
    INSERT INTO qudo_job (id, queue, ability, codec, arg, uniqkey, priority, enqueued_at)
    VALUES (new_id, new_queue, new_ability, new_codec, new_arg, NULL, new_priority,
        TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)));
    INSERT INTO qudo_ready (id, queue, claim_rank, ability, attempt, crashes)
    VALUES (new_id, new_queue, -new_priority, new_ability, 0, 0);
    COMMIT;
END;
