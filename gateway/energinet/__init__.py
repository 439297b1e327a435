"""Delivering readings to Energinet within its limits."""
