"""What the sessions table must contain, computed plainly. No engine and no SQL."""
