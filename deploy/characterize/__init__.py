"""What a board's own measurements say about the rules of its target."""
