"""The jobs that read APIs, from their request to what readers see."""
