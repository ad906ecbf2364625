"""What the use case `engine.builds` is made of: one file a kind of step."""
