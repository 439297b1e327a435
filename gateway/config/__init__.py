"""YAML to GatewayConfig; every mistake with its file, line and column."""

from gateway.config.gateway import DEFAULT_PATH, Loaded, buffer_path, find_path, load, own_profiles
from gateway.config.library import Library, UnknownProfile

__all__ = [
    "DEFAULT_PATH",
    "Library",
    "Loaded",
    "UnknownProfile",
    "buffer_path",
    "find_path",
    "load",
    "own_profiles",
]
