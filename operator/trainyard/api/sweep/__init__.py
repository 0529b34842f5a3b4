"""The TrainingSweep: what a user writes, which values its trials may have, and what a trial's run is called."""
