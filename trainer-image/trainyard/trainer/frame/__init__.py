"""What all kinds of trainings share: what comes before a step's own work, around it and after it."""
