-- A worker promises in its own row how long it may be silent before others may take its jobs, in
-- microseconds; 0: not told, by a program of before. Costs nothing: the table has a row per living worker.

ALTER TABLE qudo_worker ADD COLUMN dead_after INTEGER NOT NULL DEFAULT 0;
