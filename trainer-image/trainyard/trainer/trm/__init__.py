"""Tiny Recursive Models: one small network applied many times to an answer that it refines."""
