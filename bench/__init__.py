"""What is measured, against whom; the last results stand in README.md."""
