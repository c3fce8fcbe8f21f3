"""A seeded generator of a messy app: people, their visits, and what the export makes of them."""
