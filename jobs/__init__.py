"""The jobs: what each is called, what it needs and which steps it takes."""
