"""TrainingSchedules: the right run at the right time, exactly once."""
