"""What was booked, attached and at work: by person, team, host, GPU, model, day, week and month, in any span of time."""
