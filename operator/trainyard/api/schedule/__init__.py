"""The TrainingSchedule: what a user writes, when that means a run, and what that run is called."""
