"""DVC data versions."""
