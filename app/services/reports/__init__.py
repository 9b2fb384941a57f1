"""What was booked, attached and at work: by whom, of which GPUs, and when, in any span of time."""
