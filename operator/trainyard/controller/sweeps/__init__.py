"""TrainingSweeps: trials of a template, proposed, compared, stopped and gone on with."""
