"""What pods tell while they run: the receiver, its tokens, the newest record of each run, and the pace of writing it."""
