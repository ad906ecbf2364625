"""What to do: the difference between what is wanted and what is, as a list that can be printed. Pure."""
