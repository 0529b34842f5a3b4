"""In the trainer's image alone: import paths that scripts of the Tiny Recursive Models' own repository are used to."""
