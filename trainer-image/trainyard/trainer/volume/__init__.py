"""What lies on the volumes: folders that are committed whole, checkpoints, room, and the result of a training."""
