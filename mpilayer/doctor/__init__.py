"""What would break or slow down a run: facts first, then verdicts on them."""
