"""What a person types: one file a command; arguments in, exit code out."""
