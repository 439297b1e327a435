"""meter-gateway: energy meters over Modbus, kept safe on disk, delivered to Energinet."""

__version__ = "0.1.0"
