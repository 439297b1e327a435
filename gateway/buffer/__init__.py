"""Where readings wait on disk until they are confirmed."""
