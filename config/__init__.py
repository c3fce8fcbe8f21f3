"""What a deployment declares in files: its metrics, and when its jobs run."""
