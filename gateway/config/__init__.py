"""YAML to frozen types; every mistake with its file, line and column."""
