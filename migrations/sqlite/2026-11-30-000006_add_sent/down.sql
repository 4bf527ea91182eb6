-- Removes what up.sql made. What was sent, and how far jobs are, is lost.
DROP TABLE qudo_progress;
DROP TABLE qudo_sent;
