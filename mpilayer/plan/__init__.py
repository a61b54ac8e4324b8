"""What a run will take, before it is queued: measured for seconds, then predicted."""
