-- There is nothing to remove: the procedure is removed by itself.
DO 0;
