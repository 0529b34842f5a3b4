"""Where a result can go: the fields of each target of `spec.exports`, one file a target."""
