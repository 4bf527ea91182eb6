-- Removes what up.sql made. What was sent, and how far jobs are, is lost.
DROP TABLE IF EXISTS qudo_progress;
DROP TABLE IF EXISTS qudo_sent;
