"""Asking meters: the reads to make, the line they go over, and what is known of each unit."""
