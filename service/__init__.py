"""What the HTTP service needs besides `app.py`: who may call, what is ready, what has run."""
