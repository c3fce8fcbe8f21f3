"""What is read from APIs: the clients against stand-ins over HTTP, and the pure parts."""
