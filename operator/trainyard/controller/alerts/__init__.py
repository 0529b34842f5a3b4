"""Telling others how runs fare: which alerts are due, what is sent, and the sending until it has arrived."""
